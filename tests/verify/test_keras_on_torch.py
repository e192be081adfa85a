"""The masks that Keras draws on its torch backend, redrawn: `KERAS_BACKEND=torch python -m pytest tests/verify`."""

from __future__ import annotations

import os

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "torch":
    pytest.skip("Keras runs on another backend: set KERAS_BACKEND=torch", allow_module_level=True)
pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras==3.15.*")

from onnx_spatialdrop.verify.torch import keras_mask  # noqa: E402


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("k", range(1, 20))
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_every_call_of_a_layer(dimensions: int, k: int) -> None:
    x = np.ones((3, *range(2, 2 + dimensions), 8), np.float32)
    shape = (3, *[1] * dimensions, 8)
    for seed in range(20):
        layer = getattr(keras.layers, f"SpatialDropout{dimensions}D")(k / 20, seed=1000 * k + seed)
        for counter in range(5):
            y = keras.ops.convert_to_numpy(layer(x, training=True))
            kept = keras_mask(shape, k / 20, 1000 * k + seed, counter)
            np.testing.assert_array_equal(y != 0, np.broadcast_to(kept, x.shape))
