"""The figures of docs/robustness.md: each program that measures some writes its own table, and nothing else."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir

__all__ = ["write"]

_FILE = Path(__file__).parents[2] / "docs" / "robustness.md"


def write(name: str, figures: Mapping[str, int], how: str) -> None:
    """Put a table of ``figures`` between the marks of ``name``; ``how`` says how long was looked and where."""
    versions = f"Python {platform.python_version()}, onnx {onnx.__version__}, onnx_ir {onnx_ir.__version__}"
    rows = "\n".join(f"| {what} | {count:,} |" for what, count in figures.items())
    table = f"{how[0].upper()}{how[1:]}; {versions}.\n\n| | |\n|---|--:|\n{rows}\n"
    text = _FILE.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    head, rest = text.split(begin)
    _FILE.write_text(f"{head}{begin}{table}{rest[rest.index(end) :]}")
