"""Measures the native kernel beside memcpy and beside what else can do the work, and writes docs/benchmarks.md.

Everything runs in one process, interleaved, on one thread unless told otherwise; a row is the median of its runs, and
ratios are between medians of the same loop. It asserts nothing: a loaded machine must not look like a broken kernel.

    python benchmarks/native.py [--rounds 31] [--threads 1] [--write]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from native_peers import Peer, peers
from native_sessions import DRAWN, ELEMENT, bound_run, draw_run, drop_model, node_chain

from onnx_spatialdrop.operator import spec

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MIB = 2**20
#: How many pairs of buffers the rows beside memcpy are measured with.
BUFFERS = 5
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


def interleaved(rounds: int, threads: int, *functions: Callable[[], object]) -> list[float]:
    """Return the median time of each function, all called in turn, ``rounds`` times after one unmeasured round.

    Each is called twice, and the second call measured, so that what it finds in the caches is what it left there:
    otherwise whoever leaves lines to be written back would have the next one pay for them.

    With one thread, a call that another process pushed off its core (wall time beyond processor time by a tenth) is
    not counted, and the loop goes on for up to twenty times as long to have enough of the others.
    """
    counted: list[list[float]] = [[] for _ in functions]
    every: list[list[float]] = [[] for _ in functions]
    for turn in range(20 * rounds + 1):
        for function, good, all_ in zip(functions, counted, every, strict=True):
            function()
            start, cpu = time.perf_counter(), time.process_time()
            function()
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            if turn > 0:
                all_.append(wall)
                if threads > 1 or wall < 1.1 * cpu + 5e-6:
                    good.append(wall)
        if min(map(len, counted)) >= rounds:
            break
    return [statistics.median(good or all_) for good, all_ in zip(counted, every, strict=True)]


def copier(to: np.ndarray, source: np.ndarray) -> Callable[[], object]:
    """Return glibc's memcpy of one array onto another."""
    memcpy = ctypes.CDLL(None).memcpy
    memcpy.restype, memcpy.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return lambda: memcpy(to.ctypes.data, source.ctypes.data, source.nbytes)


def aligned(shape: tuple[int, ...], itemsize: int, numbers: bool = False) -> np.ndarray:
    """Return bytes of the given shape at a multiple of 64, as ONNX Runtime's own tensors are, all pages touched.

    With ``numbers`` they are small numbers of both signs in every type of that size: memory moves equal or zero bytes
    faster than such as tensors hold.
    """
    size = int(np.prod(shape)) * itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    buffer = raw[start : start + size]
    if numbers:
        top = itemsize - 1
        buffer[:] = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        buffer.reshape(-1, itemsize)[:, top] &= 0x80
        buffer.reshape(-1, itemsize)[:, top] |= 0x3C
    return buffer


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


def peer_row(peer: Peer, rounds: int, threads: int) -> str:
    """Return the row of one peer, the median of ``BUFFERS`` sets of buffers, or the reason why there is none."""
    if peer.missing:
        return f"| {peer.name} | {peer.case} | | | {peer.missing} | | {peer.goal} |"
    measured = []
    for _ in range(BUFFERS):
        x, y, z = (aligned(peer.shape, 4, numbers) for numbers in (True, False, False))
        ours, theirs = interleaved(rounds // 3, threads, peer.ours(x, y, threads), peer.run(x, z, threads))
        measured.append((theirs / ours, ours, theirs))
    measured.sort()
    factor, ours, theirs = measured[BUFFERS // 2]
    others = f"{measured[0][0]:.1f} - {measured[-1][0]:.1f}"
    return f"| {peer.name} | {peer.case} | {ours * 1e3:.3f} | {theirs * 1e3:.3f} | {factor:.1f} | {others} | {peer.goal} |"


def machine() -> str:
    """Return one paragraph about the machine and what ran on it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    path = "avx512" if "avx512bw" in flags else "avx2" if "avx2" in flags else "portable"
    folders = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
    caches = sorted({f"L{(c / 'level').read_text().strip()} {(c / 'size').read_text().strip()}" for c in folders})
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{facts.get('model name', 'unknown')} ({platform.machine()}), {os.cpu_count()} cores, {', '.join(caches)}; "
        f"{' '.join(platform.libc_ver())}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, "
        f"numpy {np.__version__}; path {os.environ.get('ONNX_SPATIALDROP_CPU', path)}; load average {load}."
    )


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
    yield "float32, out of place; times in ms; factor: how much faster, and of all the buffers that it is the median of."
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
