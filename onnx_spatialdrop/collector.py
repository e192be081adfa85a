"""Python's collector of reference cycles, which rests while a model is read, rewritten or written."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_paused"]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no cycles inside the context.

    A model is millions of objects that stay. To look for garbage among them again and again takes as long as making
    them.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
