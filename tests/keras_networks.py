"""Small networks in Keras 3, and Keras's own forward pass with given masks. Imports Keras when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from onnx_spatialdrop.operator import reference

STEPS = (0, 3)


def text_cnn(dropout_type: str | None = None) -> tuple[Any, np.ndarray]:
    """An Embedding, SpatialDropout1D, then two equal layers of it on one input."""
    import keras
    from keras import layers

    kind = {"dtype": dropout_type}
    tokens = keras.Input((24,), dtype="int32", name="tokens")
    x = layers.SpatialDropout1D(0.2, name="words", **kind)(layers.Embedding(40, 8, name="embedding")(tokens))
    x = layers.Conv1D(8, 3, padding="same", activation="relu", name="conv")(x)
    left = layers.Conv1D(6, 3, name="left_conv")(layers.SpatialDropout1D(0.4, name="left", **kind)(x))
    right = layers.Conv1D(6, 3, name="right_conv")(layers.SpatialDropout1D(0.4, name="right", **kind)(x))
    pooled = [layers.GlobalMaxPooling1D(name=f"pool{i}")(branch) for i, branch in enumerate((left, right))]
    model = keras.Model(tokens, layers.Dense(3, name="out")(layers.Concatenate(name="both")(pooled)), name="text_cnn")
    return model, np.random.default_rng(1).integers(0, 40, (3, 24)).astype(np.int32)


def text_lstm() -> tuple[Any, np.ndarray]:
    """A Sequential model: Embedding, SpatialDropout1D, LSTM, SpatialDropout1D, LSTM."""
    import keras
    from keras import layers

    parts = [
        keras.Input((12,), dtype="int32", name="tokens"),
        layers.Embedding(40, 8, name="embedding"),
        layers.SpatialDropout1D(0.3, name="words"),
        layers.LSTM(6, return_sequences=True, name="lstm1"),
        layers.SpatialDropout1D(0.3, seed=99, name="states"),
        layers.LSTM(5, name="lstm2"),
        layers.Dense(2, name="out"),
    ]
    return keras.Sequential(parts, name="text_lstm"), np.random.default_rng(2).integers(0, 40, (3, 12)).astype(np.int32)


def unet3d() -> tuple[Any, np.ndarray]:
    """A 3-D U-Net of two levels, each block a nested model with SpatialDropout3D."""
    import keras
    from keras import layers

    def block(name: str, channels: int, width: int, rate: float) -> Any:
        inside = keras.Input((None, None, None, channels), name=f"{name}_in")
        x = layers.Conv3D(width, 3, padding="same", name=f"{name}_conv")(inside)
        x = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))
        return keras.Model(inside, layers.SpatialDropout3D(rate, name=f"{name}_drop")(x), name=name)

    volume = keras.Input((8, 8, 4, 1), name="volume")
    down = block("down", 1, 4, 0.2)(volume)
    deep = block("deep", 4, 6, 0.5)(layers.MaxPooling3D(name="pool")(down))
    up = layers.Concatenate(name="skip")([layers.UpSampling3D(name="up")(deep), down])
    out = layers.Conv3D(2, 1, name="out")(block("top", 10, 4, 0.2)(up))
    return keras.Model(volume, out, name="unet3d"), _normal((2, 8, 8, 4, 1))


def cnn2d(data_format: str = "channels_last", seeds: bool = True) -> tuple[Any, np.ndarray]:
    """SpatialDropout2D twice on one input, Dropout with a noise_shape, and a plain Dropout."""
    import keras
    from keras import layers

    first = data_format == "channels_first"
    kinds = {"data_format": data_format}
    image = keras.Input((3, 16, 16) if first else (16, 16, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1", **kinds)(image)
    x = layers.BatchNormalization(axis=1 if first else -1, name="bn")(x)
    one = layers.SpatialDropout2D(0.3, name="one", **kinds)(x)
    two = layers.SpatialDropout2D(0.3, seed=7 if seeds else None, name="two", **kinds)(x)
    x = layers.Conv2D(6, 3, name="conv2", **kinds)(layers.Add(name="add")([one, two]))
    noise = (None, None, 1, 1) if first else (None, 1, 1, None)
    x = layers.Dropout(0.5, noise_shape=noise, name="noise")(x)
    x = layers.GlobalAveragePooling2D(name="pool", **kinds)(x)
    out = layers.Dense(4, name="out")(layers.Dropout(0.5, name="plain")(x))
    return keras.Model(image, out, name=f"cnn2d_{data_format}"), _normal((3, 3, 16, 16) if first else (3, 16, 16, 3))


def cnn2d_channels_first() -> tuple[Any, np.ndarray]:
    """cnn2d in ONNX's own layout."""
    return cnn2d("channels_first")


def subclassed() -> tuple[Any, np.ndarray]:
    """A subclassed model that calls one layer twice and holds a Sequential."""
    import keras
    from keras import layers

    class Twice(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="subclassed")
            self.convs = [layers.Conv1D(5, 3, name=f"conv{i}") for i in range(2)]
            self.drop = layers.SpatialDropout1D(0.4, seed=5, name="shared")
            inner = [layers.Conv1D(4, 1, name="inner_conv"), layers.SpatialDropout1D(0.1, name="inside")]
            self.inner = keras.Sequential(inner, name="inner")

        def call(self, x: Any, training: bool = False) -> Any:
            for conv in self.convs:
                x = self.drop(conv(x), training=training)
            return self.inner(x, training=training)

    model, x = Twice(), _normal((2, 12, 3))
    model(x)
    return model, x


def uneven() -> tuple[Any, np.ndarray]:
    """Generators that do not count alike: shared by layers, ahead of the others, drawn from several times a pass."""
    import keras
    from keras import layers

    words = keras.Input((6, 8), name="words")
    once = layers.SpatialDropout1D(0.4, seed=21, name="once")
    noise = layers.Dropout(0.3, noise_shape=(None, 1, None), seed=22, name="noise")
    plain = layers.Dropout(0.5, name="plain")
    for layer in (noise, plain):
        layer._tracker.unlock()  # Keras lets no layer change its generator once it is built
        layer.seed_generator = once.seed_generator
    ahead = layers.SpatialDropout1D(0.6, seed=-7 % 2**31, name="ahead")
    ahead.seed_generator.state.assign([-7 % 2**31, 10])
    x = noise(plain(once(layers.Dense(8, name="dense1")(words))))
    x = layers.Add(name="add")([ahead(x), layers.SpatialDropout1D(1.0, name="all")(x)])
    x = layers.Reshape((3, 2, 8), name="reshape")(x)
    x = layers.TimeDistributed(layers.SpatialDropout1D(0.5, seed=21, name="each"), name="time")(x)
    out = layers.Dense(3, name="out")(layers.Flatten(name="flatten")(x))
    return keras.Model(words, out, name="uneven"), _normal((4, 6, 8))


def mixed_float16() -> tuple[Any, np.ndarray]:
    """A network that computes, and drops, in float16."""
    import keras
    from keras import layers

    half = {"dtype": "mixed_float16"}
    words = keras.Input((5, 6), name="words")
    x = layers.SpatialDropout1D(0.3, name="one", **half)(layers.Dense(12, name="dense1", **half)(words))
    x = layers.Dropout(0.55, noise_shape=(None, None, 1), name="noise", **half)(layers.ReLU(name="relu", **half)(x))
    return keras.Model(words, layers.Dense(4, name="out", **half)(x), name="mixed_float16"), _normal((3, 5, 6))


def bfloat16_dropout() -> tuple[Any, np.ndarray]:
    """A network in float32 that drops in bfloat16, which ONNX Runtime can run."""
    return text_cnn("bfloat16")


def cnn2d_bfloat16() -> tuple[Any, np.ndarray]:
    """A network that computes, and drops, in bfloat16."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return cnn2d()
    finally:
        keras.config.set_dtype_policy(before)


NETWORKS: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {
    function.__name__: function for function in (text_cnn, text_lstm, cnn2d, cnn2d_channels_first, unet3d, subclassed)
}
#: Networks that only tests of masks need.
COUNTING: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {
    function.__name__: function for function in (uneven, mixed_float16, bfloat16_dropout, cnn2d_bfloat16)
}

#: How those are verified that a default session does not run, or not as closely as its output's type would have it.
VERIFIED: dict[str, dict[str, Any]] = {
    "cnn2d_bfloat16": {"runtime": "reference"},  # ONNX Runtime has no convolutions in bfloat16 on the CPU
    "bfloat16_dropout": {"tolerance": 4e-2},  # Keras on JAX divides: a unit of bfloat16 off, in float32
}


def build(name: str) -> tuple[Any, np.ndarray]:
    """Return a network with random weights, batch normalisation's included, equal on every call, and its input."""
    import keras

    keras.utils.set_random_seed(11)
    model, x = (NETWORKS | COUNTING)[name]()
    rng = np.random.default_rng(3)
    for variable in model.weights:
        if "seed_generator" in variable.path:
            continue
        drawn = rng.normal(size=variable.shape).astype(np.float32) * 0.5
        variable.assign(np.abs(drawn) + 0.5 if variable.name == "moving_variance" else drawn)
    return model, x


def _normal(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


@contextmanager
def forced(seeds: dict[str, list[int]], step: int) -> Iterator[None]:
    """Let every dropout layer in ``seeds`` multiply by the reference's mask for its seed, and others do nothing.

    Axes come from the layer's class and layout, not from the exported file: so wrong axes there are found.

    Args:
        seeds: by the layer's name, the seed of each of its calls.
        step: the step.
    """
    import keras
    from keras import ops

    calls = dict.fromkeys(seeds, 0)

    def call(self: Any, x: Any, training: bool = False) -> Any:  # noqa: ARG001
        if self.name not in seeds:
            return x
        seed = seeds[self.name][calls[self.name]]
        calls[self.name] += 1
        shape = tuple(int(size) for size in x.shape)
        axes = _axes(self, len(shape))
        mask = reference.dropout_mask(shape, axes, self.rate, seed, step)
        scale = ops.cast(1.0 / (1.0 - self.rate), x.dtype)
        return ops.where(ops.convert_to_tensor(mask), x * scale, ops.zeros_like(x))

    spatial = keras.layers.SpatialDropout1D.__mro__[1]
    saved = [(cls, cls.__dict__["call"]) for cls in (keras.layers.Dropout, spatial)]
    for cls, _ in saved:
        cls.call = call
    try:
        yield
    finally:
        for cls, original in saved:
            cls.call = original
    assert calls == {name: len(values) for name, values in seeds.items()}


def _axes(layer: Any, rank: int) -> tuple[int, ...]:
    if "Spatial" not in type(layer).__name__:
        return () if layer.noise_shape is None else tuple(i for i, size in enumerate(layer.noise_shape) if size == 1)
    return tuple(range(2, rank)) if getattr(layer, "data_format", "") == "channels_first" else tuple(range(1, rank - 1))
