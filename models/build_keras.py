"""Keras 3 on TensorFlow: train the channels_last networks, export them, and put SpatialDropout nodes into them.

Keras and tf2onnx lose dropout layers on the way to an inference model, and tf2onnx moves the channels in front of
them; so a layer that tf2onnx must not touch stands in their place during our own export.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", KERAS_BACKEND="tensorflow")

import digits
import keras
import onnx
import onnx_ir as ir
import tensorflow as tf
import tf2onnx
from keras import layers

from onnx_spatialdrop.graph import replace
from onnx_spatialdrop.passes.insert import insert

__all__ = ["build", "build_1d", "build_eval_export", "build_train_export"]

EPOCHS: Final = 60
BATCH: Final = 64
OPSET: Final = 18  # the newest that tf2onnx 1.17 writes
_MARKER: Final = "marker"


def network() -> keras.Model:
    """Return the untrained 2D network: images (samples, 8, 8, 1), channels last; 19,162 parameters."""
    image = keras.Input((8, 8, 1), name="image")
    h = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1")(image)
    h = layers.SpatialDropout2D(0.3, seed=101, name="drop1")(h)
    h = layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2")(h)
    h = layers.MaxPooling2D(2, name="pool")(h)
    h = layers.SpatialDropout2D(0.3, seed=102, name="drop2")(h)
    h = layers.Conv2D(48, 3, padding="same", activation="relu", name="conv3")(h)
    h = layers.SpatialDropout2D(0.3, seed=103, name="drop3")(h)
    h = layers.GlobalAveragePooling2D(name="mean")(h)
    return keras.Model(image, layers.Dense(10, name="classes")(h), name="digits")


def network_1d() -> keras.Model:
    """Return the untrained 1D network: an image is a sequence of 8 rows of 8 features; 15,610 parameters."""
    rows = keras.Input((8, 8), name="image")
    h = layers.Conv1D(48, 3, padding="same", activation="relu", name="conv1")(rows)
    h = layers.SpatialDropout1D(0.2, seed=201, name="drop1")(h)
    h = layers.Conv1D(64, 3, padding="same", activation="relu", name="conv2")(h)
    h = layers.SpatialDropout1D(0.2, seed=202, name="drop2")(h)
    h = layers.Flatten(name="flat")(h)
    return keras.Model(rows, layers.Dense(10, name="classes")(h), name="digits")


@cache
def trained(make: Callable[[], keras.Model]) -> keras.Model:
    """Train a network on one thread with TensorFlow's deterministic kernels; the same weights every time."""
    with contextlib.suppress(RuntimeError):  # threads can be set only before the first op
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session()
    keras.utils.set_random_seed(digits.SEED)
    data, model = digits.load(), make()
    steps = EPOCHS * -(-len(data.train_images) // BATCH)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(8e-3, steps), weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = data.train_images.reshape(-1, *model.input_shape[1:])
    model.fit(images, data.train_labels, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


class _Marker(layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.debugging.check_numerics(x, self.name)


def marked(model: keras.Model) -> onnx.ModelProto:
    """Return the ONNX inference model with a Marker node, its ``message`` the layer's name, for each dropout layer."""

    def layer(old: Any) -> Any:
        if isinstance(old, (layers.SpatialDropout1D, layers.SpatialDropout2D)):
            return _Marker(name=old.name)
        return type(old).from_config(old.get_config())

    def handler(_context: Any, node: Any, _name: str, _arguments: Any) -> Any:
        node.type, node.domain = _MARKER, _MARKER
        return node

    copy = keras.models.clone_model(model, clone_function=layer)
    copy.set_weights(model.get_weights())
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name="image")]
    function = tf.function(lambda image: {"logits": copy(image, training=False)}, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(
        function,
        input_signature=signature,
        opset=OPSET,
        custom_op_handlers={"CheckNumerics": (handler, [])},
        extra_opset=[onnx.helper.make_opsetid(_MARKER, 1)],
    )
    assert isinstance(proto, onnx.ModelProto)
    return proto


def _insert(model: keras.Model, path: Path) -> None:
    graph_model = ir.from_proto(marked(model))
    rates = {}
    for node in [node for node in graph_model.graph if node.domain == _MARKER]:
        source, layer = node.inputs[0], model.get_layer(node.attributes["message"].as_string())
        assert source is not None
        assert source.name is not None
        rates[source.name] = layer.rate
        assert len(source.uses()) == 1
        replace.splice(node, source)
    del graph_model.opset_imports[_MARKER]
    for value in (*graph_model.graph.inputs, *graph_model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    insert(graph_model, path, after=rates, data_format="channels_last", seed=digits.SEED)


def _record(model: keras.Model, path: Path) -> None:
    data = digits.load()
    images = data.test_images.reshape(-1, *model.input_shape[1:])
    digits.save_record(path, images, data.test_labels, model(images, training=False).numpy())


def build(folder: Path) -> None:
    """Write digits_keras: SpatialDropout nodes on channels_last tensors, where the SpatialDropout2D layers were."""
    model = trained(network)
    _insert(model, folder / "digits_keras.onnx")
    _record(model, folder / "digits_keras.npz")


def build_1d(folder: Path) -> None:
    """Write digits_keras_1d: SpatialDropout nodes where the SpatialDropout1D layers were."""
    model = trained(network_1d)
    _insert(model, folder / "digits_keras_1d.onnx")
    _record(model, folder / "digits_keras_1d.npz")


def _export(model: keras.Model, path: Path) -> None:
    temporary = path.with_suffix(".tmp.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(temporary, format="onnx", opset_version=OPSET, verbose=False)
    os.replace(temporary, path)


def build_eval_export(folder: Path) -> None:
    """Write what ``model.export`` writes by itself: no trace of the dropout layers, and channels first inside."""
    _export(trained(network), folder / "digits_keras_eval_export.onnx")


def build_train_export(folder: Path) -> None:
    """Write what ``model.export`` writes of a model that calls the network with training=True: an invalid file."""
    model = trained(network)
    image = keras.Input((8, 8, 1), name="image")
    sampling = keras.Model(image, model(image, training=True), name="sampling")
    sampling(digits.load().test_images[:1, ..., None])  # an uncalled model has no graph to export
    _export(sampling, folder / "digits_keras_train_export.onnx")
