"""What tf2onnx writes inside exporting() draws as Keras does. Needs TensorFlow, tf2onnx and Keras on TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from export.keras_checks import BACKEND, keras, nodes
from keras_networks import build

from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.runtime.session import session
from onnx_spatialdrop.verify import verify

if BACKEND != "tensorflow":
    pytest.skip("Keras does not run on TensorFlow here", allow_module_level=True)

import tensorflow as tf
import tf2onnx

from onnx_spatialdrop.export.tf2onnx import exporting

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow and tf2onnx warn of is not ours to fix


def convert(model: Any, x: np.ndarray, **options: Any) -> ir.Model:
    spec = [tf.TensorSpec([None, *x.shape[1:]], x.dtype, name="x")]
    with exporting(elementwise=True, **options):
        proto, _ = tf2onnx.convert.from_function(tf.function(lambda x: model(x, training=False)), spec, opset=18)
    return ir.from_proto(proto)


@pytest.mark.parametrize("name", ["cnn2d", "text_cnn", "subclassed"])
def test_without_an_rng_every_mask_and_output_is_that_of_the_next_training_calls(name: str) -> None:
    model, x = build(name)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # it trains along otherwise
    model(x, training=True)  # generators need not be fresh
    exported = convert(model, x)
    assert {op.read(node).rng for node in nodes(exported).values()} == {"keras_tf"}
    found = verify(model, exported, x, kernel="python")
    assert found, str(found)
    assert sum(layer.dropped for layer in found.layers) > 0
    sess = session(exported, kernel="python")
    upcoming = int(exported.metadata_props["onnx_spatialdrop.next_step"])
    assert upcoming == 1
    for step in range(upcoming, upcoming + 3):
        feeds = {"x": x, "training_mode": np.array(True), "step": np.array([step])}
        theirs = keras.ops.convert_to_numpy(model(x, training=True))
        np.testing.assert_allclose(sess.run(None, feeds)[0], theirs, rtol=2e-5, atol=2e-5)


def test_another_rng_is_not_keras_s() -> None:
    model, x = build("text_cnn")
    found = verify(model, convert(model, x, rng="philox"), x, kernel="python")
    assert found.first is not None
    assert (found.first.step, found.first.what) == (0, "mask")
