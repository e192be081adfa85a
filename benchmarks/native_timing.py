"""How the benchmarks of the native kernel take time, the buffers they take, and the machine they ran on."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

#: How many sets of buffers the rows are measured with that move a lot.
BUFFERS = 5


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


def _facts() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def is_amd() -> bool:
    """Return whether the processor is AMD's, which the goals ask."""
    return _facts().get("vendor_id") == "AuthenticAMD"


def processor() -> str:
    """Return the processor's name and caches, which tell one machine's figures from another's."""
    folders = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
    caches = sorted({f"L{(c / 'level').read_text().strip()} {(c / 'size').read_text().strip()}" for c in folders})
    return ", ".join([f"{_facts().get('model name', 'unknown')} ({platform.machine()})", *caches])


def software() -> str:
    """Return what ran on the machine, and how busy that was."""
    flags = _facts().get("flags", "").split()
    best = "avx512" if "avx512bw" in flags else "avx2" if "avx2" in flags else "portable"
    path = os.environ.get("ONNX_SPATIALDROP_CPU", "neon" if platform.machine() == "aarch64" else best)
    tuning = os.environ.get("ONNX_SPATIALDROP_TUNING", "this processor's")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores; {' '.join(platform.libc_ver())}, Python {platform.python_version()}, onnxruntime "
        f"{onnxruntime.__version__}, numpy {np.__version__}; path {path}, tuning {tuning}; load average {load}."
    )
