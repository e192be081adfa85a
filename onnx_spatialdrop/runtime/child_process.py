"""Run code in a process of its own, so that what a runtime or a library does to its process harms nobody else."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import IO, Final

__all__ = ["death", "start"]

#: What a process that takes more memory than there is gets on Linux.
_KILLED: Final = "was killed, as happens where memory runs out"


def start(code: str, *arguments: str, output: IO[bytes] | int | None = None) -> subprocess.Popen[bytes]:
    """Start Python on ``code``, with modules found where this process finds them.

    Args:
        code: statements on one line; ``sys`` is imported.
        arguments: what sys.argv holds from 1 on.
        output: as Popen's stdout; by default this process's own.
    """
    prepared = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    return subprocess.Popen([sys.executable, "-c", prepared, *arguments], stdout=output)


def death(returncode: int) -> str:
    """Return how a process came to its end, as words that follow "it"; "" where it ended by itself."""
    if returncode >= 0:
        return ""
    if returncode == -getattr(signal, "SIGKILL", 0):
        return _KILLED
    try:
        return f"crashed ({signal.Signals(-returncode).name})"
    except ValueError:
        return f"crashed (signal {-returncode})"
