"""Measures the native kernel beside memcpy and beside what else can do the work, for docs/benchmarks.md.

Everything runs in one process, interleaved, on one thread unless told otherwise; a row is the median of its runs, and
ratios are between medians of the same loop. It asserts nothing: a loaded machine must not look like a broken kernel.

    python benchmarks/native.py [--rounds 31] [--threads 1] [--cases REGEX] [--write]

``--write`` puts the figures into the page in place of this machine's earlier ones, beside those of other machines.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from native_page import with_section
from native_peers import peer_row, peers
from native_sessions import DRAWN, ELEMENT, bound_run, draw_run, drop_model, node_chain
from native_timing import BUFFERS, aligned, copier, interleaved, is_amd, processor, software

from onnx_spatialdrop.operator import spec

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MIB = 2**20
PATHS = ("avx512", "avx2", "portable")
LAYOUTS = {"NCHW": ((64, 64, 64), [2, 3]), "NHWC": ((64, 64, 64), [1, 2])}
#: At most this many times memcpy's time, by MiB, for the worse of both ratios; what the project set out to reach.
GOAL = {9: 0.95, 32: 0.75, 64: 0.75}
GOAL_IN_PLACE = {9: 0.60, 32: 0.60, 64: 0.60}
#: Past all caches, on AMD's processors and on others, whose memcpy turns to stores past the caches itself.
GOAL_128 = (0.70, 1.10)


def goal_of(mib: int, in_place: bool = False) -> str:
    """Return the goal of a row as it is printed, "" if it has none."""
    goals = GOAL_IN_PLACE if in_place else {**GOAL, 128: GOAL_128[0] if is_amd() else GOAL_128[1]}
    return f"{goals[mib]:.2f}" if mib in goals else ""


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
        return self.goal != "" and round(self.ours / self.other, 2) > float(self.goal)

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


def kernel_rows(rounds: int, threads: int, cases_like: str) -> Iterator[Row]:
    """Yield the rows that compare with memcpy and in whose names ``cases_like`` is found."""
    cases = [(dtype, mib, False) for dtype in ELEMENT for mib in (9, 32, 64, 128)]
    cases += [("float32", mib, True) for mib in (9, 32, 64, 128)]
    for dtype, mib, in_place in cases:
        itemsize = {"float32": 4, "float64": 8}.get(dtype, 2)
        for layout, (inner, axes) in LAYOUTS.items():
            shape = (mib * MIB // itemsize // 64**3, *inner)
            for ratio in (0.2, 0.5):
                case = f"{dtype}, {mib} MiB, {layout}, ratio {ratio}{', in place' if in_place else ''}"
                if re.search(cases_like, case):
                    yield row(case, dtype, shape, axes, ratio, goal_of(mib, in_place), rounds, threads)
    for ratio in (0.2, 0.5):
        case = f"float32, 9.4 MiB, 64 x 128 x 300 channels last, ratio {ratio}"
        if re.search(cases_like, case):
            yield row(case, "float32", (64, 128, 300), [1], ratio, goal_of(9), rounds, threads)


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


def section(rounds: int, threads: int, cases_like: str) -> Iterator[str]:
    """Yield the lines of this machine's section, each as soon as it has been measured."""
    yield software() + "\n"
    yield f"{threads} thread(s), medians of {rounds} or more undisturbed rounds, {rounds // 3} for each of {BUFFERS}"
    yield "sets of buffers in the rows that move much.\n"
    yield "### Beside memcpy of the same bytes\n"
    yield "| case | kernel | memcpy | ratio | of all | limit | goal |\n|---|---|---|---|---|---|---|"
    missed = []
    for one in kernel_rows(rounds, threads, cases_like):
        yield str(one)
        if one.misses:
            missed.append(f"- {one.case}: {one.ours / one.other:.2f}, limit {one.limit / one.other:.2f}")
    yield f"\nAbove their goals: {len(missed)} rows{':' if missed else '.'}"
    if missed:
        yield "\n".join(["", *missed])
    yield f"\nA 1 x 16 x 16 x 8 node inside a graph: {small_node(rounds)} us (goal: 1.5).\n"
    yield "### Drawing a mask\n"
    yield f"| rng |{''.join(f' {path}, one row | {path}, rows of 64 |' for path in PATHS)}"
    yield f"|---|{'---|' * 2 * len(PATHS)}"
    for rng in spec.RNGS:
        yield draw_row(rng, rounds)
    yield ""
    yield "### Beside what else does this work\n"
    yield "| peer | case | kernel | peer | factor | of all | goal |\n|---|---|---|---|---|---|---|"
    for peer in peers():
        if re.search(cases_like, f"{peer.name}, {peer.case}"):
            yield peer_row(peer, rounds, threads)
    yield f"\nLoad average afterwards: {os.getloadavg()[0]:.1f}."


def main() -> None:
    """Print this machine's section, and put it into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", default="", help="measure only the rows in whose names this pattern is found")
    parser.add_argument("--write", action="store_true", help=f"put the section into {DOCUMENT}")
    arguments = parser.parse_args()
    title = processor() + (f", {arguments.threads} threads" if arguments.threads > 1 else "")
    print(f"## {title}\n")
    lines = []
    for line in section(arguments.rounds, arguments.threads, arguments.cases):
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        DOCUMENT.write_text(with_section(DOCUMENT.read_text(), title, "\n".join(lines)))


if __name__ == "__main__":
    main()
