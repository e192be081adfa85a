"""Philox4x32-10 in NumPy: the random words that every kernel and every body must reproduce.

The generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
It holds no state: a block of four 32-bit words is a pure function of a 128-bit counter and a 64-bit key.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["KEY_STEPS", "MULTIPLIERS", "ROUNDS", "block_counters", "philox4x32", "words"]

#: Multipliers of counter words 0 and 2.
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
#: What is added to the two key words between rounds (the golden ratio and sqrt(3) - 1).
KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10

_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)


def philox4x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the four words of each counter.

    Args:
        counter: uint32 values of shape (..., 4), least significant word first.
        key: uint32 values of shape (..., 2), broadcast against the counter's leading dimensions.

    Returns:
        uint32 words, shape (..., 4).
    """
    c = [np.asarray(part, np.uint64) for part in np.moveaxis(np.asarray(counter, np.uint64), -1, 0)]
    k0, k1 = (np.asarray(part, np.uint64) for part in np.moveaxis(np.asarray(key, np.uint64), -1, 0))
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for _ in range(ROUNDS):
        p0, p1 = m0 * c[0], m1 * c[2]
        c = [(p1 >> _HALF) ^ c[1] ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c[3] ^ k1, p0 & _LOW]
        k0, k1 = (k0 + np.uint64(KEY_STEPS[0])) & _LOW, (k1 + np.uint64(KEY_STEPS[1])) & _LOW
    return np.stack(np.broadcast_arrays(*c), axis=-1).astype(np.uint32)


def block_counters(first: int, count: int) -> npt.NDArray[np.uint64]:
    """Return ``count`` consecutive 128-bit counters as four 32-bit words each, carried through all 128 bits.

    Args:
        first: the first counter, any integer; taken modulo 2**128.
        count: how many, 0 or more.

    Returns:
        uint64 values below 2**32, shape (count, 4), least significant word first.
    """
    start = np.uint64(first % 2**64)
    low = start + np.arange(count, dtype=np.uint64)
    high = np.full(count, (first >> 64) % 2**64, np.uint64) + (low < start)
    return np.stack([low & _LOW, low >> _HALF, high & _LOW, high >> _HALF], axis=-1)


def words(seed: int, steps: npt.ArrayLike, count: int, start: int = 0) -> npt.NDArray[np.uint32]:
    """Return ``count`` consecutive words of each stream (seed, step).

    Word ``l`` is word ``l % 4`` of the block whose key is ``seed`` and whose counter is the 64-bit
    ``l // 4`` followed by the 64-bit ``step``.

    Args:
        seed: the 64-bit key, any integer; taken modulo 2**64 (two's complement).
        steps: int64 values of shape (R,), one stream each; taken modulo 2**64.
        count: words a stream, 0 or more.
        start: the first word's index in its stream, 0 or more.

    Returns:
        uint32 words, shape (R, count).
    """
    first, last = start // 4, (start + count + 3) // 4
    s = np.asarray(steps, np.int64).reshape(-1, 1).astype(np.uint64)
    counter = np.empty((s.shape[0], last - first, 4), np.uint64)
    counter[:] = block_counters(first, last - first)
    counter[..., 2], counter[..., 3] = s & _LOW, s >> _HALF
    key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint64)
    rows = philox4x32(counter, key).reshape(s.shape[0], 4 * (last - first))
    return rows[:, start - 4 * first :][:, :count]
