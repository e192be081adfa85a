"""What exporting() calls Keras's layers, and what it refuses. Needs TensorFlow, tf2onnx and Keras on TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from export.keras_checks import BACKEND, keras, nodes

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.verify import verify

if BACKEND != "tensorflow":
    pytest.skip("Keras does not run on TensorFlow here", allow_module_level=True)

import tensorflow as tf
import tf2onnx

from onnx_spatialdrop.export.tf2onnx import exporting

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow and tf2onnx warn of is not ours to fix

layers = keras.layers
SPEC = [tf.TensorSpec([None, 8, 4], tf.float32, name="x")]


class Block(keras.layers.Layer):  # type: ignore[misc]
    """Makes its layers when it is built, and calls one of them twice."""

    def build(self, _shape: Any) -> None:
        self.dense = layers.Dense(4, name="dense")
        self.drop = layers.SpatialDropout1D(0.4, name="drop")

    def call(self, x: Any) -> Any:
        return self.drop(self.dense(self.drop(self.dense(x))))


class Nested(keras.Model):  # type: ignore[misc]
    """Two blocks whose layers have the same names, and a Sequential."""

    def __init__(self) -> None:
        super().__init__(name="nested")
        self.blocks = [Block(name="first"), Block(name="second")]
        self.head = keras.Sequential([layers.Dense(3), layers.SpatialDropout1D(0.5, name="drop")], name="head")

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


NAMES = ["first/drop", "first/drop:1", "head/drop", "second/drop", "second/drop:1"]


def by_model_export(model: Any, path: Path) -> None:
    model.export(str(path), format="onnx", verbose=False, opset_version=18)


def by_from_keras(model: Any, path: Path) -> None:
    tf2onnx.convert.from_keras(model, SPEC, opset=18, output_path=str(path))


def by_from_function(model: Any, path: Path) -> None:
    tf2onnx.convert.from_function(tf.function(lambda x: model(x)), SPEC, opset=18, output_path=str(path))


@pytest.mark.parametrize("call", [by_model_export, by_from_keras, by_from_function])
def test_layers_are_named_from_the_outermost_model_as_with_export_and_can_be_verified(
    call: Any, tmp_path: Path
) -> None:
    model, x = Nested(), np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
    model(x)
    with exporting():
        call(model, tmp_path / "model.onnx")
    exported = io.load(tmp_path / "model.onnx")
    assert sorted(nodes(exported)) == sorted(nodes(sdk.export(model))) == NAMES
    found = verify(model, exported, x, kernel="python")
    assert found, str(found)
    assert sorted(layer.layer for layer in found.layers) == NAMES
    assert sum(layer.dropped for layer in found.layers) > 0


def convert(model: Any, **options: Any) -> onnx.ModelProto:
    with exporting(**options):
        proto, _ = tf2onnx.convert.from_function(tf.function(lambda x: model(x, training=False)), SPEC, opset=18)
    return proto


def one_layer(layer: Any) -> Any:
    inputs = keras.Input((8, 4))
    return keras.Model(inputs, layer(layers.Dense(4)(inputs)))


def float_types(proto: onnx.ModelProto) -> set[Any]:
    found = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    values = [value for node in found.graph for value in (*node.inputs, *node.outputs) if value is not None]
    return {value.dtype for value in values if value.dtype is not None and value.dtype.is_floating_point()}


def test_bfloat16_is_written_as_bfloat16_which_tf2onnx_alone_does_not() -> None:
    inputs = keras.Input((8, 4))
    kind = {"dtype": "mixed_bfloat16"}
    drop = layers.SpatialDropout1D(0.3, name="drop", **kind)
    model = keras.Model(inputs, layers.Dense(2, **kind)(drop(layers.Dense(4, **kind)(inputs))))
    alone, _ = tf2onnx.convert.from_function(tf.function(lambda x: model(x, training=False)), SPEC, opset=18)
    assert ir.DataType.FLOAT16 in float_types(alone)
    ours = convert(model)
    onnx.checker.check_model(ours, full_check=True)
    assert float_types(ours) == {ir.DataType.FLOAT, ir.DataType.BFLOAT16}
    again, _ = tf2onnx.convert.from_function(tf.function(lambda x: model(x, training=False)), SPEC, opset=18)
    assert float_types(again) == float_types(alone)  # its table is as it was


def test_two_models_in_one_function_may_have_layers_of_one_name() -> None:
    first, second = (one_layer(layers.SpatialDropout1D(0.3, name="drop")) for _ in range(2))
    assert [node.name for node in convert(lambda x, **_: second(first(x))).graph.node if node.domain] == [
        "drop",
        "drop:1",
    ]


@pytest.mark.parametrize(("jit", "expected"), [(True, "keras_tf_xla"), (False, "keras_tf")])
def test_without_an_rng_a_model_that_was_compiled_for_xla_draws_so(jit: bool, expected: str) -> None:
    model = one_layer(layers.SpatialDropout1D(0.3, name="drop"))
    model.compile("sgd", "mse", jit_compile=jit)
    assert op.read(nodes(ir.from_proto(convert(model)))["drop"]).rng == expected


def test_a_generator_that_a_layer_of_another_kind_draws_from_is_known_to_nobody() -> None:
    drop, noise = layers.SpatialDropout1D(0.3, name="drop"), layers.GaussianNoise(0.1)
    inputs = keras.Input((8, 4))
    model = keras.Model(inputs, drop(noise(inputs)))
    noise._tracker.unlock()  # Keras lets no layer change its generator once it is built
    noise.seed_generator = drop.seed_generator
    with pytest.warns(UserWarning, match="^layer 'drop': its generator draws for layers of another kind, too; "):
        assert op.read(nodes(ir.from_proto(convert(model)))["drop"]).rng == "philox"


def test_models_that_are_made_and_called_on_data_inside_of_the_block_are_left_alone() -> None:
    x = np.ones((2, 8, 4), np.float32)
    with exporting():
        model, other = Nested(), Nested()
        model(x)
        trained = keras.ops.convert_to_numpy(other(x, training=True))
        tf2onnx.convert.from_function(tf.function(tf.nn.relu), SPEC, opset=18)
    plain = keras.ops.convert_to_numpy(other(x, training=False))
    assert not np.array_equal(trained, plain)  # it did drop


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            layers.Dropout(0.5, noise_shape=(None, 3, 4), name="odd"),
            "layer 'odd': noise_shape (None, 3, 4) does not fit its input of shape ('?', 8, 4); every entry must be 1, "
            "None or the size of that axis",
        ),
        (
            layers.AlphaDropout(0.5, noise_shape=(None, 1, None), name="alpha"),
            "layer 'alpha': AlphaDropout replaces values by a constant and is no case of SpatialDropout, which keeps "
            'or zeroes; export with dropout="inference" (with tf2onnx: outside exporting()), or put a '
            "SpatialDropout or Dropout layer in its place",
        ),
    ],
)
def test_a_refusal_is_one_line_without_the_listing_that_tensorflow_puts_around_it(layer: Any, message: str) -> None:
    model = one_layer(layer)
    with pytest.raises(SpatialDropError) as error:
        convert(model)
    assert str(error.value) == message
