"""Keras networks in training against their exports: every mask bit for bit. Needs Keras and its backend's packages."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from export.keras_checks import BACKEND, BEYOND_KERAS, keras, nodes
from keras_networks import COUNTING, NETWORKS, VERIFIED, build

from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.passes.expand import expand
from onnx_spatialdrop.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix

if BACKEND == "torch":
    pytest.skip("Keras on PyTorch has no dialect", allow_module_level=True)

WORKING = [name for name in (*NETWORKS, *COUNTING) if (BACKEND, name) not in BEYOND_KERAS]
RNGS = {"tensorflow": ["keras_tf", "keras_tf_xla"], "jax": ["keras_jax"]}[BACKEND]


def state(model: Any) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in model.variables]


@pytest.mark.parametrize("rng", RNGS)
@pytest.mark.parametrize("name", WORKING)
def test_every_mask_of_five_steps_is_keras_s_and_the_model_stays_as_it_was(name: str, rng: str) -> None:
    model, x = build(name)
    if name != "text_lstm":
        model(x, training=True)  # generators need not be fresh
    before = state(model)
    exported = sdk.export(model, rng=rng, elementwise=True)
    found = verify(model, exported, x, kernel="python", **VERIFIED.get(name, {}))
    assert found, str(found)
    assert found.steps == 5
    assert found.framework == f"keras {keras.__version__} on {BACKEND} {version()}" + " (XLA)" * (rng == "keras_tf_xla")
    for old, new in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(old, new)


def version() -> str:
    return str(__import__(BACKEND).__version__)


def test_a_model_may_train_on_after_its_export() -> None:
    model, x = build("subclassed")
    exported = sdk.export(model)
    for _ in range(3):
        model(x, training=True)
    assert verify(model, exported, x, kernel="python")


@pytest.mark.parametrize("rng", ["philox", "keras_jax" if BACKEND == "tensorflow" else "keras_tf"])
def test_another_dialect_is_found_at_the_first_layer(rng: str) -> None:
    model, x = build("text_cnn")
    found = verify(model, sdk.export(model, rng=rng), x, kernel="python")
    assert found.first is not None
    assert (found.first.step, found.first.layer, found.first.what) == (0, "words", "mask")


def test_a_wrong_scale_is_found() -> None:
    model, x = build("text_lstm")
    exported = sdk.export(model)
    nodes(exported)["states"].attributes["scale"] = ir.AttrFloat32("scale", 1.43)
    found = verify(model, exported, x, kernel="python")
    assert found.first is not None
    assert (found.first.layer, found.first.what) == ("states", "value")


def test_masks_that_are_inputs_are_fed_what_keras_draws() -> None:
    model, x = build("cnn2d")
    assert verify(model, expand(sdk.export(model, rng="philox"), form="mask-inputs"), x)
