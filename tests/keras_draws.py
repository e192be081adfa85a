"""What is recorded in tests/data/keras_draws: the layers, their rates and seeds, and how to read the masks back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

FOLDER: Final = Path(__file__).parent / "data" / "keras_draws"
RATES: Final = tuple(k / 20 for k in range(21))
STEPS: Final = 5
_UINT32: Final = (
    0,
    1,
    2,
    5,
    7,
    11,
    42,
    99,
    1234,
    65535,
    65536,
    10**9,
    2**31 - 3,
    2**31 - 2,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
#: On JAX, Keras takes no seeds outside of 32 bits.
SEEDS: Final = {
    "keras_tf": (*_UINT32, 2**32 + 5, -3, 2**63 - 1),
    "keras_tf_xla": (*_UINT32, 2**32 + 5, -3, 2**63 - 1),
    "keras_jax": (*_UINT32, 3, 2**31 + 7, 3 * 10**9),
}


class Draw(NamedTuple):
    """One recorded call: the layer's rate (a double), seed and counter, its input's shape, and the mask."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    rate: float
    seed: int
    step: int
    mask: np.ndarray


def case(row: int) -> tuple[tuple[int, ...], tuple[int, ...], Callable[[float, int, str], Any]]:
    """Return the input's shape, the shared axes, and what makes the layer of (rate, seed, dtype), for a seed's row."""
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...], str, dict[str, Any]], ...] = (
        ((2, 3, 13), (1,), "SpatialDropout1D", {}),
        ((2, 2, 3, 9), (1, 2), "SpatialDropout2D", {"data_format": "channels_last"}),
        ((2, 9, 3, 2), (2, 3), "SpatialDropout2D", {"data_format": "channels_first"}),
        ((1, 2, 2, 2, 21), (1, 2, 3), "SpatialDropout3D", {"data_format": "channels_last"}),
        ((3, 7, 2, 2, 2), (2, 3, 4), "SpatialDropout3D", {"data_format": "channels_first"}),
        ((3, 4, 6), (0, 2), "Dropout", {"noise_shape": (1, None, 1)}),
        ((5, 4, 3), (1,), "Dropout", {"noise_shape": (None, 1, 3)}),
        ((4, 7), (), "Dropout", {}),
    )
    shape, axes, name, options = cases[row % len(cases)]

    def make(rate: float, seed: int, dtype: str) -> Any:
        import keras

        return getattr(keras.layers, name)(rate, seed=seed, dtype=dtype, **options)

    return shape, axes, make


def versions() -> dict[str, dict[str, str]]:
    """Return the versions that wrote the recordings, by backend."""
    found: dict[str, dict[str, str]] = json.loads((FOLDER / "versions.json").read_text())
    return found


@cache
def recorded(dialect: str) -> dict[str, np.ndarray]:
    """Return the arrays of a recording."""
    with np.load(FOLDER / f"{dialect}.npz") as arrays:
        return dict(arrays)


def draws(dialect: str, dtype: str) -> Iterator[Draw]:
    """Yield every call that was recorded on inputs of that type."""
    bits, start = np.unpackbits(recorded(dialect)[dtype]).astype(bool), 0
    for row, seed in enumerate(SEEDS[dialect]):
        shape, axes, _ = case(row)
        masked = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        for rate in RATES:
            for step in range(STEPS):
                end = start + math.prod(masked)
                yield Draw(shape, axes, rate, seed, step, bits[start:end].reshape(masked))
                start = end
    assert bits.size - start < 8
