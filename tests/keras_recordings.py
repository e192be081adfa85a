"""The recorded Keras networks: where they are and how far ONNX Runtime is from Keras. Needs no Keras."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnx_spatialdrop.runtime.session import Kernel, session

FOLDER = Path(__file__).parent / "data" / "keras_exports"


def paths() -> list[Path]:
    """Return the recorded models."""
    return sorted(FOLDER.glob("*.onnx"))


def differences(path: Path, kernel: Kernel = "body") -> dict[str, float]:
    """Return max abs (ONNX Runtime - Keras) / max(1, max abs Keras) by "inference" and step."""
    with np.load(path.with_suffix(".npz")) as recorded:
        arrays = dict(recorded)
    sess = session(path, kernel=kernel)
    name, found = sess.get_inputs()[0].name, {}
    x = arrays["x"].astype(np.float32 if sess.get_inputs()[0].type == "tensor(float)" else np.int32)
    for key in ("inference", *(key for key in arrays if key.startswith("step"))):
        feeds = {name: x}
        if key != "inference":
            feeds |= {"training_mode": np.array(True), "step": np.array([int(key[4:])])}
        (got,) = sess.run(None, feeds)
        assert got.shape == arrays[key].shape
        found[key] = float(np.abs(got - arrays[key]).max() / max(1.0, np.abs(arrays[key]).max()))
    return found
