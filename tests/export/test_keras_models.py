"""Models of many kinds through export() and verify(). Needs Keras and the packages of its backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.keras_checks import BACKEND, keras

from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix
layers = keras.layers


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def two_inputs(kind: type) -> tuple[Any, Any]:
    """Named so that an order by name is another one."""
    inputs = [keras.Input((8, 4), name="last"), keras.Input((8, 3), name="first")]
    drops = [layers.SpatialDropout1D(0.3, name=f"drop_{i}")(layers.Dense(3)(x)) for i, x in enumerate(inputs)]
    out = layers.Dense(2)(layers.Concatenate()(drops))
    arrays = [normal(2, 8, 4), normal(2, 8, 3)]
    if kind is list:
        return keras.Model(inputs, out), arrays
    names = ("last", "first")
    outputs = {"z": out, "a": layers.Dense(1)(out)}
    return keras.Model(dict(zip(names, inputs, strict=True)), outputs), dict(zip(names, arrays, strict=True))


def lists() -> tuple[Any, Any]:
    return two_inputs(list)


def dicts() -> tuple[Any, Any]:
    return two_inputs(dict)


def sequential_twice() -> tuple[Any, Any]:
    part = keras.Sequential([layers.Dense(4), layers.SpatialDropout1D(0.3, name="drop")], name="part")
    part.build((None, 8, 4))
    inputs = keras.Input((8, 4))
    return keras.Model(inputs, layers.Add()([part(part(inputs)), inputs])), normal(2, 8, 4)


def recurrent() -> tuple[Any, Any]:
    """It reverses, masks and attends: tf2onnx writes constants for it that its renaming has to keep apart."""
    tokens = keras.Input((7,), dtype="int32")
    x = layers.SpatialDropout1D(0.4, name="words")(layers.Embedding(20, 6, mask_zero=True)(tokens))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True, dropout=0.2))(x)
    x = layers.SpatialDropout1D(0.3, name="states")(x)
    x = layers.MultiHeadAttention(2, 4, dropout=0.3)(x, x)
    return keras.Model(tokens, layers.Dense(2)(x)), np.random.default_rng(2).integers(1, 20, (3, 7)).astype(np.int32)


def bidirectional() -> tuple[Any, Any]:
    inputs = keras.Input((7, 4))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.SpatialDropout1D(0.4, name="drop")(x))), normal(2, 7, 4)


def noise_shapes() -> tuple[Any, Any]:
    """With None, with a batch of 1, and shorter than the input."""
    inputs = keras.Input((6, 5, 4))
    x = layers.Dense(4)(inputs)
    shapes = [(None, 1, None, None), [None, None, 1, 1], (1, 1, 4), (1, None, 1, 4)]
    for i, shape in enumerate(shapes):
        x = layers.Dropout(0.3, noise_shape=shape, name=f"noise_{i}")(x)
    return keras.Model(inputs, layers.Dense(2)(x)), normal(3, 6, 5, 4)


def extreme_rates() -> tuple[Any, Any]:
    inputs = keras.Input((8, 64))
    x = layers.SpatialDropout1D(1e-4, name="hardly")(layers.Dense(64)(inputs))
    return keras.Model(inputs, layers.SpatialDropout1D(0.999, name="nearly_all")(x)), normal(3, 8, 64)


MODELS: list[Callable[[], tuple[Any, Any]]] = [
    lists,
    dicts,
    sequential_twice,
    bidirectional,
    noise_shapes,
    extreme_rates,
]
if BACKEND != "jax":  # Keras on JAX exports no recurrent layer on a masked batch of any size
    MODELS.append(recurrent)


@pytest.mark.parametrize("make", MODELS)
def test_its_masks_and_outputs_are_keras_s(make: Callable[[], tuple[Any, Any]], tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model, x = make()
    masks = BACKEND == "torch"  # whose generator no graph can hold
    file = sdk.export(model, tmp_path / "model.onnx", mask_inputs=masks)
    found = verify(model, file, x, steps=3, kernel="python")
    assert found, str(found)
    if (BACKEND, make) not in {("tensorflow", recurrent), ("tensorflow", bidirectional)}:  # tf2onnx's Loops differ
        again = sdk.export(model, tmp_path / "again.onnx", mask_inputs=masks)
        assert file.read_bytes() == again.read_bytes()
