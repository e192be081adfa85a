"""Threefry2x32-20 in NumPy: the generator that JAX draws with.

From Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), as Philox is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["PARITY", "ROTATIONS", "ROUNDS", "threefry2x32", "words"]

#: By how many bits each round rotates to the left; they repeat after eight rounds.
ROTATIONS: Final = (13, 15, 26, 6, 17, 29, 16, 24)
#: What the key words and the third word of the key schedule have as their exclusive or (Skein's constant).
PARITY: Final = 0x1BD11BDA
ROUNDS: Final = 20

_LOW: Final = 0xFFFFFFFF


def threefry2x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the two words of each counter.

    Args:
        counter: uint32 values of shape (..., 2).
        key: uint32 values of shape (..., 2), broadcast against the counter's leading dimensions.

    Returns:
        uint32 words, shape (..., 2).
    """
    x0, x1 = (np.asarray(part, np.uint32) for part in np.moveaxis(np.asarray(counter, np.uint32), -1, 0))
    k0, k1 = (np.asarray(part, np.uint32) for part in np.moveaxis(np.asarray(key, np.uint32), -1, 0))
    schedule = (k0, k1, k0 ^ k1 ^ np.uint32(PARITY))
    with np.errstate(over="ignore"):
        x0, x1 = x0 + schedule[0], x1 + schedule[1]
        for n in range(ROUNDS):
            left = np.uint32(ROTATIONS[n % len(ROTATIONS)])
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << left) | (x1 >> (np.uint32(32) - left)))
            if n % 4 == 3:
                group = n // 4 + 1
                x0 = x0 + schedule[group % 3]
                x1 = x1 + schedule[(group + 1) % 3] + np.uint32(group)
    return np.stack(np.broadcast_arrays(x0, x1), axis=-1)


def words(seed: int, steps: npt.ArrayLike, count: int, start: int = 0) -> npt.NDArray[np.uint32]:
    """Return ``count`` consecutive words of each stream (seed, step), as JAX's partitionable generator numbers them.

    Word ``l`` is the exclusive or of the two words that Threefry makes of the 64-bit counter ``l``, high half first,
    under the key (low half of ``seed``, low half of ``step``).

    Args:
        seed: any integer; its low 32 bits count.
        steps: int64 values of shape (R,), one stream each; their low 32 bits count.
        count: words a stream, 0 or more.
        start: the first word's index in its stream, 0 or more.

    Returns:
        uint32 words, shape (R, count).
    """
    index = np.uint64(start) + np.arange(count, dtype=np.uint64)
    counter = np.stack([index >> np.uint64(32), index & np.uint64(_LOW)], axis=-1)
    second = np.asarray(steps, np.int64).reshape(-1, 1).astype(np.uint64) & np.uint64(_LOW)
    key = np.stack(np.broadcast_arrays(np.uint64(seed & _LOW), second), axis=-1)
    drawn = threefry2x32(counter, key)
    return np.asarray(drawn[..., 0] ^ drawn[..., 1])
