"""What of Keras 2 (tf_keras) comes out of tf2onnx inside exporting(). Needs TensorFlow, tf2onnx and tf_keras."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.runtime.session import session

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # the frameworks' own, at import
    warnings.simplefilter("ignore")
    tf = pytest.importorskip("tensorflow", reason='no TensorFlow: pip install "onnx_spatialdrop[tf2onnx]"')
    tf2onnx = pytest.importorskip("tf2onnx", reason='no tf2onnx: pip install "onnx_spatialdrop[tf2onnx]"')
    tf_keras = pytest.importorskip("tf_keras", reason="no tf_keras: pip install tf_keras==2.21.*")

from onnx_spatialdrop.export.tf2onnx import exporting

pytestmark = pytest.mark.filterwarnings("ignore")  # what TensorFlow and tf2onnx warn of is not ours to fix

X = np.random.default_rng(0).normal(size=(3, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Any:
    layers = tf_keras.layers
    words = tf_keras.Input((12, 3))
    x = layers.SpatialDropout1D(0.3, seed=5, name="one")(layers.Conv1D(8, 3, activation="relu")(words))
    x = layers.Dropout(0.4, noise_shape=(None, 1, None), name="noise")(layers.Conv1D(8, 3)(x))
    return tf_keras.Model(words, layers.Dense(4)(layers.Dropout(0.5, name="plain")(x)))


def convert(network: Any, training: bool | None, elementwise: bool = False) -> onnx.ModelProto:
    spec = [tf.TensorSpec([None, 12, 3], tf.float32, name="x")]
    with exporting(elementwise=elementwise):
        if training is None:
            return tf2onnx.convert.from_keras(network, input_signature=spec, opset=18)[0]
        function = tf.function(lambda x: network(x, training=training))
        return tf2onnx.convert.from_function(function, spec, opset=18)[0]


def found(proto: onnx.ModelProto) -> list[tuple[tuple[int, ...], str]]:
    return [
        (op.read(site.node).axes, op.read(site.node).rng)
        for site in sorted(spatial_dropouts(ir.from_proto(proto)), key=lambda site: site.node.name or "")
    ]


@pytest.mark.parametrize("training", [None, False])
def test_in_inference_mode_its_layers_leave_nothing(network: Any, training: bool | None) -> None:
    proto = convert(network, training)
    assert found(proto) == []
    assert len(proto.graph.input) == 1
    got = session(proto).run(None, {proto.graph.input[0].name: X})[0]
    np.testing.assert_allclose(got, network(X, training=False), rtol=2e-5, atol=2e-5)


def test_in_training_mode_they_are_recognised_and_draw_by_philox(network: Any) -> None:
    assert found(convert(network, True)) == [((1,), "philox")] * 2  # the plain one stays on for good
    proto = convert(network, True, elementwise=True)
    assert sorted(found(proto)) == [((), "philox"), ((1,), "philox"), ((1,), "philox")]
    sess = session(proto, kernel="python")
    feeds = {proto.graph.input[0].name: X}
    off = sess.run(None, feeds)[0]
    np.testing.assert_allclose(off, network(X, training=False), rtol=2e-5, atol=2e-5)
    on = sess.run(None, {**feeds, "training_mode": np.array(True), "step": np.array([1])})[0]
    assert np.abs(on - off).max() > 0.01
