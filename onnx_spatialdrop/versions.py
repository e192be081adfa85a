"""Which versions of other packages are known to work, and how versions compare; .ci/bounds runs the ends."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["TESTED", "older", "untested"]

#: package or "python" -> the first and the last version that is known to work; .ci/bounds runs the tests with both.
TESTED: Final = {
    "python": ("3.10", "3.13"),
    "onnx": ("1.19", "1.23"),
    "onnx-ir": ("1.1", "1.1"),
    "onnxruntime": ("1.20", "1.32"),
    "onnxruntime-extensions": ("0.15", "0.15"),
    "numpy": ("1.26", "2.5"),
}


def _numbers(version: str) -> tuple[int, int]:
    found = [int(part) for part in re.findall(r"\d+", version)[:2]]
    return (found[0], found[1]) if len(found) == 2 else (0, 0)


def older(version: str, than: str) -> bool:
    """Return whether a version comes before another one, by its first two numbers."""
    return _numbers(version) < _numbers(than)


def untested(package: str, version: str) -> str:
    """Return in words that a version is out of the range that was tested; "" where it is in it or nothing is known."""
    if package not in TESTED or _numbers(version) == (0, 0):
        return ""
    first, last = TESTED[package]
    if older(version, first):
        return f"older than {first}, the first that is tested: upgrade it"
    return f"newer than {last}, the last that was tested" if older(last, version) else ""
