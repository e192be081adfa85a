"""Export Keras networks, and record what their dropout does in five training-mode passes.

    KERAS_BACKEND=tensorflow PYTHONPATH=tests python tests/data/keras_masks/build.py    (keras_tf_*, keras_tf_xla_*)
    KERAS_BACKEND=jax PYTHONPATH=tests python tests/data/keras_masks/build.py           (keras_jax_*)

or the networks that are named only.

Needs onnx_spatialdrop[keras] or [keras-jax]; the tests read the files without Keras.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
from keras_networks import COUNTING, NETWORKS, VERIFIED, build

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.verify import record, verify

HERE = Path(__file__).parent
RNGS = {"tensorflow": ["keras_tf", "keras_tf_xla"], "jax": ["keras_jax"]}


def main() -> None:
    for rng in RNGS[keras.backend.backend()]:
        for name in sys.argv[1:] or (*NETWORKS, *COUNTING):
            model, x = build(name)
            try:
                file = sdk.export(model, HERE / f"{rng}_{name}.onnx", rng=rng, elementwise=name != "uneven")
            except SpatialDropError as error:
                print(f"{rng} {name}: {error}")
                continue
            recorded = record(model, file, HERE / f"{rng}_{name}.npz", x)
            result = verify(recorded, file, kernel="python", **VERIFIED.get(name, {}))
            print(rng, name, result.headline())
            assert result


if __name__ == "__main__":
    main()
