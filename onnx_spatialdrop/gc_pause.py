"""Garbage collection, paused while a model is read, rewritten or written: no cycles arise there, and looking costs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["gc_paused"]


@contextmanager
def gc_paused() -> Iterator[None]:
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
