"""Export small Keras networks, with dropout on and off, to tests/data/keras.

Run it with tensorflow 2.15.1 and tf2onnx 1.16.1 installed; the files it wrote are committed. ``NAME_train.onnx`` always
drops, ``NAME_eval.onnx`` never does, and ``NAME.npz`` has an input and the network's eval output.
Names of networks as arguments write only those.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx

OUT = Path(__file__).parent / "keras"
layers = tf.keras.layers


def cnn(x: Any, training: bool) -> Any:
    """Two convolutions, each with SpatialDropout2D, and element-wise Dropout before the last layer."""
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(layers.SpatialDropout2D(0.2)(x, training=training))
    x = layers.SpatialDropout2D(0.3)(layers.Conv2D(8, 3, strides=2, activation="relu")(x), training=training)
    return layers.Dense(3)(layers.Dropout(0.5)(layers.Flatten()(layers.MaxPooling2D()(x)), training=training))


def open_size(x: Any, training: bool) -> Any:
    """Convolutions over maps of any size."""
    x = layers.SpatialDropout2D(0.2)(layers.Conv2D(4, 3, padding="same", activation="relu")(x), training=training)
    return layers.Conv2D(3, 1)(layers.SpatialDropout2D(0.3)(layers.Conv2D(4, 3)(x), training=training))


def residual(x: Any, training: bool) -> Any:
    """Residual blocks with drop path."""
    x = layers.Conv2D(4, 3, padding="same")(x)
    for rate in (0.1, 0.2):
        y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(x))
        x = x + layers.Dropout(rate, noise_shape=(None, 1, 1, 1))(y, training=training)
    x = layers.SpatialDropout2D(0.25)(x, training=training)
    return layers.Dense(2)(layers.GlobalAveragePooling2D()(x))


def recurrent(x: Any, training: bool) -> Any:
    """An LSTM between two dropouts shared over time."""
    x = layers.LSTM(5, return_sequences=True)(layers.SpatialDropout1D(0.2)(x, training=training))
    return layers.Dense(1)(layers.Dropout(0.4, noise_shape=(None, 1, 5))(x, training=training))


def branches(x: Any, training: bool) -> Any:
    """One dropout that two convolutions read."""
    x = layers.SpatialDropout2D(0.2)(x, training=training)
    return layers.Concatenate()([layers.Conv2D(2, 3, padding="same")(x), layers.Conv2D(2, 1)(x)])


def text(x: Any, training: bool) -> Any:
    """Convolutions over time, each with SpatialDropout1D."""
    x = layers.SpatialDropout1D(0.1)(layers.Conv1D(6, 3, activation="relu")(x), training=training)
    x = layers.Conv1D(6, 3, activation="relu", dilation_rate=2)(x)
    return layers.Dense(2)(layers.GlobalMaxPooling1D()(layers.SpatialDropout1D(0.1)(x, training=training)))


def alpha(x: Any, training: bool) -> Any:
    """Alpha dropout after SELU."""
    return layers.Dense(2)(layers.AlphaDropout(0.3)(layers.Dense(4, activation="selu")(x), training=training))


def dense_block(x: Any, training: bool) -> Any:
    """A block that joins what it computes to its input, and pads it."""
    for rate in (0.2, 0.3):
        y = layers.Conv2D(4, 3)(layers.LeakyReLU()(layers.ZeroPadding2D(1)(x)))
        x = layers.Concatenate()([x, layers.SpatialDropout2D(rate)(y, training=training)])
    return layers.Conv2D(2, 1)(x)


def attention(x: Any, training: bool) -> Any:
    """An attention block with drop path, whose shapes tf2onnx computes."""
    y = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization()(x + layers.Dropout(0.2, noise_shape=(None, 1, 1))(y, training=training))
    return layers.GRU(3)(layers.SpatialDropout1D(0.3)(layers.Dense(6)(x), training=training))


NETWORKS: dict[str, tuple[Callable[[Any, bool], Any], tuple[int | None, ...]]] = {
    "cnn": (cnn, (12, 12, 3)),
    "open_size": (open_size, (None, None, 3)),
    "residual": (residual, (8, 8, 3)),
    "recurrent": (recurrent, (6, 4)),
    "branches": (branches, (8, 8, 3)),
    "text": (text, (16, 4)),
    "alpha": (alpha, (5,)),
    "dense_block": (dense_block, (8, 8, 3)),
    "attention": (attention, (6, 4)),
}


def main() -> None:
    """Write all files."""
    OUT.mkdir(exist_ok=True)
    for name, (build, shape) in NETWORKS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        tf.keras.utils.set_random_seed(1)
        networks = []
        for training in (True, False):
            given = tf.keras.Input(shape)
            networks.append(tf.keras.Model(given, build(given, training)))
        networks[1].set_weights(networks[0].get_weights())
        signature = [tf.TensorSpec((None, *shape), tf.float32, name="x")]
        for network, how in zip(networks, ("train", "eval"), strict=True):
            path = str(OUT / f"{name}_{how}.onnx")
            tf2onnx.convert.from_keras(network, input_signature=signature, opset=15, output_path=path)
        x = np.random.default_rng(0).standard_normal((3, *(size or 9 for size in shape))).astype(np.float32)
        np.savez(OUT / f"{name}.npz", x=x, y=networks[1](x).numpy())


if __name__ == "__main__":
    main()
