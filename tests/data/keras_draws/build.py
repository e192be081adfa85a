"""Record which entries Keras's dropout layers keep, for the dialects of ``rng``.

    KERAS_BACKEND=tensorflow python tests/data/keras_draws/build.py    (writes keras_tf.npz and keras_tf_xla.npz)
    KERAS_BACKEND=jax python tests/data/keras_draws/build.py           (writes keras_jax.npz)

Each file holds ``rates``; ``seeds``, int64; ``states``, int64 of shape (types, seeds, rates, STEPS): the layer's
counter after each call, -1 where the layer has no generator; and for each type the masks of all calls as packed bits,
seeds outermost, then rates, then steps, each mask row-major. tests/keras_draws.py says which layer a seed belongs to,
versions.json what wrote the files. float64 is there for the record: no dialect draws it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]
TYPES = ("float16", "bfloat16", "float32", "float64")


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        record("keras_tf", TYPES)
        record("keras_tf_xla", TYPES, compiled=True)
    else:
        record("keras_jax", TYPES[:3])  # JAX has no float64 unless told so, and then it draws otherwise
    path = HERE / "versions.json"
    versions = json.loads(path.read_text()) if path.exists() else {}
    packages = {"tensorflow": ("keras", "tensorflow"), "jax": ("keras", "jax", "jaxlib")}[backend]
    versions[backend] = {name: importlib.metadata.version(name) for name in packages}
    path.write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


def record(dialect: str, types: tuple[str, ...], compiled: bool = False) -> None:
    """Write one file. What is ``compiled`` (by XLA) serves several seeds: the layers' state is set."""
    from keras import ops
    from keras_draws import RATES, SEEDS, STEPS, case

    arrays: dict[str, np.ndarray] = {"rates": np.array(RATES), "seeds": np.array(SEEDS[dialect], np.int64)}
    states = np.empty((len(types), len(SEEDS[dialect]), len(RATES), STEPS), np.int64)
    for kind, dtype in enumerate(types):
        masks, made = [], dict[Any, Any]()
        for row, seed in enumerate(SEEDS[dialect]):
            shape, axes, make = case(row)
            key = (shape, axes) if compiled else row
            if key not in made:
                layers = [make(rate, seed, dtype) for rate in RATES]
                made[key] = layers, _call(layers, compiled)
            layers, call = made[key]
            if compiled:
                for layer in layers[1:]:  # the first one's rate is 0: it has no generator
                    layer.seed_generator.state.assign([seed, 0])
            entry = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(len(shape)))
            drawn = np.empty((len(RATES), STEPS, *np.ones(shape)[entry].shape), np.bool_)
            for step in range(STEPS):
                for column, y in enumerate(call(ops.ones(shape, dtype))):
                    kept = ops.convert_to_numpy(ops.cast(y, "float32")) != 0
                    assert (kept == kept[entry]).all()
                    drawn[column, step] = kept[entry]
                    states[kind, row, column, step] = _counter(layers[column])
            masks.append(drawn.reshape(-1))
        arrays[dtype] = np.packbits(np.concatenate(masks))
    np.savez_compressed(HERE / f"{dialect}.npz", states=states, **arrays)


def _call(layers: list[Any], compiled: bool) -> Callable[[Any], list[Any]]:
    def call(x: Any) -> list[Any]:
        return [layer(x, training=True) for layer in layers]

    if compiled:
        import tensorflow as tf

        return tf.function(call, jit_compile=True)
    return call


def _counter(layer: Any) -> int:
    from keras import ops

    if not hasattr(layer, "seed_generator"):
        return -1
    return int(ops.convert_to_numpy(layer.seed_generator.state.value)[1])


if __name__ == "__main__":
    main()
