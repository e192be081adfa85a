"""tf2onnx's own calls inside exporting(). Needs TensorFlow, tf2onnx and Keras on TensorFlow."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from keras_networks import build, forced

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import reference
from onnx_spatialdrop.runtime.session import session

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # the frameworks' own, at import
    warnings.simplefilter("ignore")
    tf = pytest.importorskip("tensorflow", reason='no TensorFlow: pip install "onnx_spatialdrop[tf2onnx]"')
    tf2onnx = pytest.importorskip("tf2onnx", reason='no tf2onnx: pip install "onnx_spatialdrop[tf2onnx]"')
    keras = pytest.importorskip("keras", reason='no Keras: pip install "onnx_spatialdrop[keras]"')
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras does not run on TensorFlow here", allow_module_level=True)

from onnx_spatialdrop.export.tf2onnx import exporting

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow and tf2onnx warn of is not ours to fix


def convert(function: Any, shape: list[int | None], rng: str | None = "philox", **options: Any) -> onnx.ModelProto:
    spec = [tf.TensorSpec(shape, tf.float32, name="x")]
    with exporting(rng=rng, **options):
        proto, _ = tf2onnx.convert.from_function(tf.function(function), spec, opset=18)
    onnx.checker.check_model(proto)
    return proto


def nodes(proto: onnx.ModelProto) -> list[ir.Node]:
    return [site.node for site in spatial_dropouts(ir.from_proto(proto))]


def run(proto: onnx.ModelProto, x: np.ndarray, **switches: Any) -> np.ndarray:
    sess = session(proto, kernel="body")
    return sess.run(None, {sess.get_inputs()[0].name: x, **{k: np.array(v) for k, v in switches.items()}})[0]


@pytest.mark.parametrize("training", [False, True])
def test_a_keras_model_keeps_its_layers_however_it_is_called(training: bool) -> None:
    model, x = build("cnn2d")
    proto = convert(lambda x: model(x, training=training), [None, 16, 16, 3])
    found = {node.name: op.read(node) for node in nodes(proto)}
    assert sorted(found) == ["noise", "one", "two"]
    axes = {attributes.axes for attributes in found.values()}
    assert axes <= {(1, 2), (2, 3)}  # batch normalisation that trains stops some transposes from moving through
    if not training:  # batch normalisation trains along otherwise, as the caller asked
        assert axes == {(2, 3)}
        np.testing.assert_allclose(run(proto, x), model(x, training=False), rtol=2e-5, atol=2e-5)
        with forced({name: [attributes.seed] for name, attributes in found.items()}, 4):
            expected = keras.ops.convert_to_numpy(model(x, training=False))
        np.testing.assert_allclose(run(proto, x, training_mode=True, step=[4]), expected, rtol=2e-5, atol=2e-5)


def test_from_keras_writes_the_nodes_into_the_file_that_it_was_given(tmp_path: Path) -> None:
    model, _ = build("cnn2d")
    with exporting(elementwise=True):
        proto, _ = tf2onnx.convert.from_keras(model, opset=18, output_path=str(tmp_path / "model.onnx"))
    assert sorted(node.name for node in nodes(proto)) == ["noise", "one", "plain", "two"]
    assert onnx.load(tmp_path / "model.onnx") == proto


@pytest.mark.parametrize("kind", ["stateful", "stateless"])
def test_dropout_spelled_out_in_random_ops_is_recognised(kind: str) -> None:
    def function(x: Any) -> Any:
        for seed in (1, 2):
            noise = tf.stack([tf.shape(x)[0], 1, tf.shape(x)[2]])
            if kind == "stateful":
                x = tf.nn.dropout(tf.nn.relu(x), 0.25, noise_shape=noise, seed=seed)
            else:
                x = tf.nn.experimental.stateless_dropout(tf.nn.relu(x), 0.25, seed=[seed, 0], noise_shape=noise)
        return x

    proto = convert(function, [None, 5, 4])
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(proto, x), np.maximum(x, 0))
    expected = x
    assert len({op.read(node).seed for node in nodes(proto)}) == 2
    for node in nodes(proto):
        read = op.read(node)
        assert read.axes == (1,)
        kept = np.maximum(expected, 0)
        expected, _ = reference.spatial_dropout(kept, (1,), 0.25, read.seed, 6, scale=read.scale)
    np.testing.assert_allclose(run(proto, x, training_mode=True, step=[6]), expected, rtol=1e-6)


def test_a_check_of_the_users_own_is_dropped_as_tf2onnx_always_does() -> None:
    proto = convert(lambda x: tf.nn.relu(tf.raw_ops.CheckNumerics(tensor=x, message="mine")), [2, 3])
    assert [node.op_type for node in proto.graph.node] == ["Relu"]


def test_tf2onnx_is_itself_again_behind_the_block() -> None:
    before = (tf2onnx.convert._convert_common, keras.layers.Dropout.call, tf2onnx.utils.INTERNAL_NAME)
    convert(lambda x: tf.nn.relu(x), [2, 3])
    assert (tf2onnx.convert._convert_common, keras.layers.Dropout.call, tf2onnx.utils.INTERNAL_NAME) == before


def test_weights_outside_of_the_model_are_refused() -> None:
    spec = [tf.TensorSpec([2, 3], tf.float32)]
    with exporting(), pytest.raises(SpatialDropError) as error:
        tf2onnx.convert.from_function(tf.function(tf.nn.relu), spec, opset=18, large_model=True)
    assert str(error.value) == ("tf2onnx: large_model=True keeps weights outside of the model; convert without it")
