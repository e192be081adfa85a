"""Records the gradients of Keras's own layers in gradients_keras.npz, each backend in its environment.

    KERAS_BACKEND=tensorflow PYTHONPATH=.:tests python tests/training/golden_keras.py    (keras_tf, keras_tf_xla)
    KERAS_BACKEND=jax PYTHONPATH=.:tests python tests/training/golden_keras.py           (keras_jax)

The layers are those of tests/keras_draws.py. The tests read the file and need no Keras.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from keras_draws import SEEDS, case

FILE: Final = Path(__file__).with_name("gradients_keras.npz")
RATES: Final = (0.3, 0.25, 0.5, 0.1, 0.6, 0.9, 0.2, 0.7)
STEP: Final = 3
#: Rows of tests/keras_draws.py: each kind of layer, some with seeds beyond 32 bits.
ROWS: Final = dict.fromkeys(SEEDS, (0, 1, 2, 3, 12, 13, 14, 15, 17, 18, 19))


class Case(NamedTuple):
    """One call of a layer, at STEP: what it was given, and how the loss weighs what comes out."""

    axes: tuple[int, ...]
    rate: float
    seed: int
    x: np.ndarray
    weights: np.ndarray


def load_case(rng: str, row: int) -> Case:
    shape, axes, _ = case(row)
    numbers = np.random.default_rng(row)
    x, weights = (numbers.uniform(0.5, 2, shape).astype(np.float32) for _ in range(2))
    return Case(axes, RATES[row % len(RATES)], SEEDS[rng][row], x, weights)


def keras_gradient(rng: str, row: int) -> np.ndarray:
    """Return d sum(weights * y * y) / 2 / d x of the layer at STEP, as the backend differentiates it."""
    given = load_case(rng, row)
    layer = case(row)[2](given.rate, given.seed, "float32")
    layer.build(given.x.shape)
    if rng == "keras_jax":
        return _on_jax(layer, given)
    return _on_tensorflow(layer, given, rng == "keras_tf_xla")


def _on_tensorflow(layer: Any, given: Case, compiled: bool) -> np.ndarray:
    import tensorflow as tf

    @tf.function(jit_compile=compiled)
    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(given.weights * y * y) / 2
        return tape.gradient(loss, x)

    found = gradient if compiled else gradient.python_function
    layer.seed_generator.state.assign([given.seed, STEP])
    return found(tf.constant(given.x)).numpy()


def _on_jax(layer: Any, given: Case) -> np.ndarray:
    import jax

    layer.seed_generator.state.assign(np.array([given.seed, STEP], np.uint32))
    state = [variable.value for variable in layer.non_trainable_variables]

    def loss(x: Any) -> Any:
        y, _ = layer.stateless_call([], state, x, training=True)
        return (given.weights * y * y).sum() / 2

    return np.asarray(jax.grad(loss)(given.x))


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    backend = keras.backend.backend()
    dialects = {"tensorflow": ("keras_tf", "keras_tf_xla"), "jax": ("keras_jax",)}[backend]
    arrays = dict(np.load(FILE)) if FILE.exists() else {}
    for rng in dialects:
        arrays |= {f"{rng}/{row}": keras_gradient(rng, row) for row in ROWS[rng]}
    packages = {"tensorflow": ("keras", "tensorflow"), "jax": ("keras", "jax", "jaxlib")}[backend]
    arrays[f"versions/{backend}"] = np.array([f"{name} {importlib.metadata.version(name)}" for name in packages])
    temporary = FILE.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **dict(sorted(arrays.items())))
    os.replace(temporary, FILE)


if __name__ == "__main__":
    main()
