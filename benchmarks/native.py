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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from native_peers import Peer, peers
from native_sessions import ELEMENT, bound_run, drop_model, node_chain

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MIB = 2**20
LAYOUTS = {"NCHW": ((64, 64, 64), [2, 3]), "NHWC": ((64, 64, 64), [1, 2])}
#: At most this many times memcpy's time; what the project set out to reach.
GOAL = {"float32": 0.70, "float16": 0.80, "bfloat16": 0.80, "float64": 0.75}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    ours: float  # seconds
    other: float
    goal: str

    def __str__(self) -> str:
        times = f"{self.ours * 1e3:.3f} | {self.other * 1e3:.3f} | {self.ours / self.other:.2f}"
        return f"| {self.case} | {times} | {self.goal} |"


def interleaved(rounds: int, threads: int, *functions: Callable[[], object]) -> list[float]:
    """Return the median time of each function, all called in turn, ``rounds`` times after one unmeasured round.

    With one thread, a call that another process pushed off its core (wall time beyond processor time by a tenth) is
    not counted, and the loop goes on for up to twenty times as long to have enough of the others.
    """
    counted: list[list[float]] = [[] for _ in functions]
    every: list[list[float]] = [[] for _ in functions]
    for turn in range(20 * rounds + 1):
        for function, good, all_ in zip(functions, counted, every, strict=True):
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


def aligned(shape: tuple[int, ...], itemsize: int, fill: int = 0) -> np.ndarray:
    """Return bytes of the given shape at a multiple of 64, as ONNX Runtime's own tensors are, all pages touched."""
    size = int(np.prod(shape)) * itemsize
    raw = np.full(size + 64, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def row(
    case: str, dtype: str, shape: tuple[int, ...], axes: list[int], ratio: float, goal: str, rounds: int, threads: int
) -> Row:
    """Return the row of one node between buffers of the caller; "in place" in its name makes X and Y the same one."""
    itemsize = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[dtype]
    x, y, z = (aligned(shape, itemsize, fill) for fill in (0x3C, 0, 0))
    if "in place" in case:
        y = x
    ours = bound_run(drop_model(dtype, shape, axes, ratio), ELEMENT[dtype], shape, x, y, threads)
    return Row(case, *interleaved(rounds, threads, ours, copier(z if y is x else y, x)), goal)


def kernel_rows(rounds: int, threads: int) -> Iterator[Row]:
    """Yield the rows that compare with memcpy."""
    for dtype, goal in GOAL.items():
        itemsize = np.dtype(dtype).itemsize if dtype != "bfloat16" else 2
        for mib in (32, 128) if dtype == "float32" else (32,):
            for layout, (inner, axes) in LAYOUTS.items():
                shape = (mib * MIB // itemsize // 64**3, *inner)
                for ratio in (0.2, 0.5):
                    case = f"{dtype}, {mib} MiB, {layout}, ratio {ratio}"
                    yield row(case, dtype, shape, axes, ratio, f"{goal:.2f}", rounds, threads)
    for layout, (inner, axes) in LAYOUTS.items():
        for ratio in (0.2, 0.5):
            shape = (32 * MIB // 4 // 64**3, *inner)
            case = f"float32, 32 MiB, {layout}, ratio {ratio}, in place"
            yield row(case, "float32", shape, axes, ratio, "0.62", rounds, threads)
    for ratio in (0.2, 0.5):
        case = f"float32, 9.4 MiB, 64 x 128 x 300 channels last, ratio {ratio}"
        yield row(case, "float32", (64, 128, 300), [1], ratio, "1.00", 4 * rounds, threads)


def limit(rounds: int, threads: int) -> Row:
    """Return the row of the fastest copy that this kernel knows: no arithmetic, stores past the caches."""
    shape = (128, 64, 64, 64)
    x, y = (aligned(shape, 4, fill) for fill in (0x3C, 0))
    ours = bound_run(drop_model("float32", shape, [2, 3], 0.5), 1, shape, x, y, threads, training=False)
    return Row(
        "float32, 128 MiB, inference: a copy without arithmetic", *interleaved(rounds, threads, ours, copier(y, x)), ""
    )


def small_node(rounds: int) -> str:
    """Return the cost of a small node inside a graph."""
    short, long = (node_chain(count) for count in (10, 210))
    few, many = interleaved(20 * rounds, 1, short, long)
    return f"{(many - few) / 200 * 1e6:.2f}"


def peer_row(peer: Peer, rounds: int, threads: int) -> str:
    """Return the row of one peer, or the reason why there is none."""
    if peer.run is None:
        return f"| {peer.name} | | | {peer.missing} | {peer.goal} |"
    ours, theirs = interleaved(rounds, threads, peer.ours, peer.run)
    return f"| {peer.name} | {ours * 1e3:.3f} | {theirs * 1e3:.3f} | {theirs / ours:.1f} | {peer.goal} |"


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
    yield "Times in ms. The goal is what the project set out to reach. The first row is the limit: a copy without any"
    yield "arithmetic, made as this kernel makes it.\n"
    yield "| case | kernel | memcpy | ratio | goal |\n|---|---|---|---|---|"
    yield str(limit(rounds, threads))
    yield from map(str, kernel_rows(rounds, threads))
    yield f"\nA 1 x 16 x 16 x 8 node inside a graph: {small_node(rounds)} us (goal: 1.5).\n"
    yield "## Beside what else does this work\n"
    yield "float32, 32 MiB, NCHW, ratio 0.2, out of place. Times in ms; factor: how many times faster the kernel is."
    yield "ONNX's Dropout draws for every element, because the standard has no other.\n"
    yield "| peer | kernel | peer | factor | goal |\n|---|---|---|---|---|"
    for peer in peers(aligned, threads):
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
