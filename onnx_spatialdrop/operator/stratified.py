"""Draws that are balanced over cycles of steps: what the attribute ``strata`` stands for.

Each entry has a random order of the steps of a cycle and is dropped at the first of them. This module is plain numbers;
docs/operator.md is the same rule in prose.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.operator import dialects, philox

__all__ = ["CYCLES", "STRATA", "kept", "kept_rows", "threshold"]

#: The values of ``strata``: 1 for independent draws, or the prime number of steps in a cycle.
STRATA: Final = (1, *(n for n in range(3, 128) if all(n % d for d in range(2, n))))

#: Added to the number of a cycle, as int64, to draw the orders of its entries: it sets a bit that no step has.
CYCLES: Final = np.int64(-(2**63))

_LEVELS: Final = 2**24


def threshold(ratio: float, strata: int) -> int:
    """Return D = ceil(float32(ratio) * strata * 2**24): an entry is dropped D / 2**24 times a cycle on average."""
    return math.ceil(float(np.float32(ratio)) * strata * _LEVELS)


def kept(
    words: npt.NDArray[np.uint32],
    orders: npt.NDArray[np.uint32],
    steps: npt.NDArray[np.int64],
    limit: int,
    strata: int,
) -> npt.NDArray[np.bool_]:
    """Return which entries are kept.

    An entry's order is rank(j) = (a j + c) mod P, with P = ``strata`` and a, c from its word of the cycle: a random
    affine map modulo a prime, so that the ranks of two steps of a cycle are like two numbers drawn without replacement.

    Args:
        words: the word of each entry at its step, shape (R, n).
        orders: the word of each entry for its cycle, shape (R, n).
        steps: the steps, shape (R,), 0 or more.
        limit: the threshold D.
        strata: the steps in a cycle.

    Returns:
        bool, shape (R, n).
    """
    a_and_c = orders.astype(np.int64) % max(strata * (strata - 1), 1)
    place = (steps % strata).reshape(-1, 1)
    rank = ((1 + a_and_c // strata) * place + a_and_c % strata) % strata
    always, sometimes = divmod(limit, _LEVELS)
    return np.asarray((rank > always) | ((rank == always) & (words >> np.uint32(8) >= np.uint32(sometimes))))


def kept_rows(
    seed: int,
    steps: npt.ArrayLike,
    count: int,
    limit: int,
    *,
    strata: int = 1,
    rng: str = "philox",
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[np.bool_]:
    """Return rows of mask entries, by any dialect: True where an entry is kept.

    Args:
        seed: 64-bit key, in [-2**63, 2**63).
        steps: int64 values of shape (R,), one row each; 0 or more where ``strata`` is not 1.
        count: entries a row, 0 or more.
        limit: ``threshold(ratio, strata)``, or with another dialect than "philox" ``dialects.threshold``.
        strata: the steps in a cycle; 1 with another dialect than "philox".
        rng: the dialect.
        dtype: the type of X.

    Returns:
        bool, shape (R, count).

    Raises:
        SpecError: the dialect has no test for ``dtype``.
    """
    rows: npt.NDArray[Any] = np.asarray(steps, np.int64).reshape(-1)
    words = dialects.words(rng, seed, rows, count)
    if strata == 1:
        return dialects.kept(words, rng, dtype, limit)
    return kept(words, philox.words(seed, rows // strata + CYCLES, count), rows, limit, strata)
