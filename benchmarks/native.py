"""Measures the native kernel beside memcpy and beside what else can do the work, and writes docs/benchmarks.md.

Everything runs in one process, interleaved, on one thread unless told otherwise; a row is the median of its runs, and
ratios are between medians of the same loop. It asserts nothing: a loaded machine must not look like a broken kernel.

    python benchmarks/native.py [--rounds 31] [--threads 1] [--write]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from native_peers import peer_row, peers
from native_sessions import DRAWN, ELEMENT, bound_run, draw_run, drop_model, node_chain
from native_timing import BUFFERS, aligned, copier, interleaved, machine

from onnx_spatialdrop.operator import spec

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MIB = 2**20
PATHS = ("avx512", "avx2", "portable")
LAYOUTS = {"NCHW": ((64, 64, 64), [2, 3]), "NHWC": ((64, 64, 64), [1, 2])}
#: At most this many times memcpy's time; what the project set out to reach.
GOAL = {"float32": 0.70, "float16": 0.80, "bfloat16": 0.80, "float64": 0.75}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    ours: float  # seconds
    other: float
    limit: float
    goal: str
    ratios: tuple[float, ...] = ()  # of all pairs of buffers that this row is the median of

    @property
    def misses(self) -> bool:
        """Whether the ratio, as printed, is above the goal."""
        return round(self.ours / self.other, 2) > float(self.goal)

    def __str__(self) -> str:
        times = f"{self.ours * 1e3:.3f} | {self.other * 1e3:.3f} | {self.ours / self.other:.2f}"
        others = f"{min(self.ratios):.2f} - {max(self.ratios):.2f}" if self.ratios else ""
        return f"| {self.case} | {times} | {others} | {self.limit / self.other:.2f} | {self.goal} |"


def compared(
    case: str, rounds: int, threads: int, goal: str, ours: Callable[[], object], limit: Callable[[], object],
    copy: Callable[[], object],
) -> Row:  # fmt: skip
    """Return a row with memcpy measured before and after the kernel."""
    first, kernel, second, bound = interleaved(rounds, threads, copy, ours, copy, limit)
    return Row(case, kernel, (first + second) / 2, bound, goal)


def row(
    case: str, dtype: str, shape: tuple[int, ...], axes: list[int], ratio: float, goal: str, rounds: int, threads: int
) -> Row:
    """Return the median of ``BUFFERS`` rows: where buffers lie in memory moves memcpy's time by a third."""
    parts = (case, dtype, shape, axes, ratio, goal, rounds // 3, threads)
    rows = sorted((row_between(*parts) for _ in range(BUFFERS)), key=lambda one: one.ours / one.other)
    return replace(rows[BUFFERS // 2], ratios=tuple(one.ours / one.other for one in rows))


def row_between(
    case: str, dtype: str, shape: tuple[int, ...], axes: list[int], ratio: float, goal: str, rounds: int, threads: int
) -> Row:
    """Return the row of one node between two new buffers.

    Its limit moves the same bytes without choosing among them: the kernel in inference, which copies, or, if "in place"
    is in the case's name, the kernel multiplying all of X by -1.
    """
    itemsize = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[dtype]
    x, y = aligned(shape, itemsize, numbers=True), aligned(shape, itemsize)
    in_place = "in place" in case
    model = drop_model(dtype, shape, axes, ratio)
    ours = bound_run(model, ELEMENT[dtype], shape, x, x if in_place else y, threads)
    if in_place:
        negated = drop_model(dtype, shape, axes, 0.0, scale=-1.0)
        limit = bound_run(negated, ELEMENT[dtype], shape, x, x, threads)
    else:
        limit = bound_run(model, ELEMENT[dtype], shape, x, y, threads, training=False)
    return compared(case, rounds, threads, goal, ours, limit, copier(y, x))


def kernel_rows(rounds: int, threads: int) -> Iterator[Row]:
    """Yield the rows that compare with memcpy."""
    for dtype, goal in GOAL.items():
        itemsize = np.dtype(dtype).itemsize if dtype != "bfloat16" else 2
        for mib in (32, 64, 128) if dtype == "float32" else (32, 128):
            for layout, (inner, axes) in LAYOUTS.items():
                shape = (mib * MIB // itemsize // 64**3, *inner)
                for ratio in (0.2, 0.5):
                    case = f"{dtype}, {mib} MiB, {layout}, ratio {ratio}"
                    yield row(case, dtype, shape, axes, ratio, f"{goal:.2f}", rounds, threads)
    for mib in (32, 128):
        for layout, (inner, axes) in LAYOUTS.items():
            for ratio in (0.2, 0.5):
                shape = (mib * MIB // 4 // 64**3, *inner)
                case = f"float32, {mib} MiB, {layout}, ratio {ratio}, in place"
                yield row(case, "float32", shape, axes, ratio, "0.62", rounds, threads)
    for ratio in (0.2, 0.5):
        case = f"float32, 9.4 MiB, 64 x 128 x 300 channels last, ratio {ratio}"
        yield row(case, "float32", (64, 128, 300), [1], ratio, "1.00", 4 * rounds, threads)


def draw_row(rng: str, rounds: int) -> str:
    """Return the row of one dialect: what an entry costs on each path, in one long row and in rows of 64."""
    runs = [draw_run(rng, rows, path) for path in PATHS for rows in (1, DRAWN // 64)]
    times = [f"{seconds / DRAWN * 1e9:.2f}" for seconds in interleaved(rounds, 1, *runs)]
    return f"| {rng} | {' | '.join(times)} |"


def small_node(rounds: int) -> str:
    """Return the cost of a small node inside a graph."""
    short, long = (node_chain(count) for count in (10, 210))
    few, many = interleaved(20 * rounds, 1, short, long)
    return f"{(many - few) / 200 * 1e6:.2f}"


def document(rounds: int, threads: int) -> Iterator[str]:
    """Yield the lines of docs/benchmarks.md, each as soon as it has been measured."""
    yield "# Benchmarks of the native kernel\n"
    yield "Written by `python benchmarks/native.py --write`; run it to have your own machine's figures.\n"
    yield machine() + "\n"
    yield f"One process, {threads} thread(s), interleaved, medians of {rounds} or more undisturbed rounds.\n"
    yield "## Beside memcpy of the same bytes\n"
    yield "Times in ms; ratio: kernel / memcpy. The limit is the same ratio for moving these bytes as the kernel moves"
    yield "them without dropping any: a copy, or in place a product with -1. NCHW can be below it, because a map that"
    yield "is dropped is not read. The goal is what the project set out to reach. Every measured run follows one of its"
    yield "own kind, so that each pays for the lines that it leaves in the caches to be written back.\n"
    yield f"Each row is the median of {BUFFERS} pairs of new buffers, {rounds // 3} or more rounds each; the ratios"
    yield "of all stand beside it, because where buffers lie in memory moves every time, and memcpy's most.\n"
    yield "| case | kernel | memcpy | ratio | of all | limit | goal |\n|---|---|---|---|---|---|---|"
    missed = []
    for one in kernel_rows(rounds, threads):
        yield str(one)
        if one.misses:
            missed.append(f"- {one.case}: {one.ours / one.other:.2f}, limit {one.limit / one.other:.2f}")
    yield f"\nAbove their goals: {len(missed)} rows{':' if missed else '.'}"
    yield from missed
    yield f"\nA 1 x 16 x 16 x 8 node inside a graph: {small_node(rounds)} us (goal: 1.5).\n"
    yield "## Drawing a mask\n"
    yield "ns an entry, float32, 2^20 entries: in one row, and in rows of 64 with a step each.\n"
    yield f"| rng |{''.join(f' {path}, one row | {path}, rows of 64 |' for path in PATHS)}"
    yield f"|---|{'---|' * 2 * len(PATHS)}"
    for rng in spec.RNGS:
        yield draw_row(rng, rounds)
    yield ""
    yield "## Beside what else does this work\n"
    yield "float32, out of place; times in ms; factor: how much faster, as the median of as many buffers and"
    yield "with each of them."
    yield "ONNX's Dropout draws for every element, because the standard has no other.\n"
    yield "| peer | case | kernel | peer | factor | of all | goal |\n|---|---|---|---|---|---|---|"
    for peer in peers():
        yield peer_row(peer, rounds, threads)
    yield f"\nLoad average afterwards: {os.getloadavg()[0]:.1f}."


def main() -> None:
    """Print the document, and write it where it belongs if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT}")
    arguments = parser.parse_args()
    lines = []
    for line in document(arguments.rounds, arguments.threads):
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        DOCUMENT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
