"""What the tests of the Keras exporter share: Keras itself, or a reason to skip, and how an export is looked at."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.runtime.session import session

__all__ = ["BACKEND", "BEYOND_KERAS", "close", "keras", "nodes", "run", "seeds_by_layer"]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # the frameworks' own, at import
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", reason='Keras is not installed: pip install "onnx_spatialdrop[keras]"')
    BACKEND = keras.backend.backend()
    for package in {"tensorflow": ["tensorflow", "tf2onnx"], "jax": ["jax2onnx"], "torch": ["torch", "onnxscript"]}[
        BACKEND
    ]:
        pytest.importorskip(package, reason=f"Keras's ONNX export on {BACKEND} needs {package}, which is not installed")

#: What Keras's own exporter cannot do today: (backend, network).
BEYOND_KERAS = {("jax", "unet3d"), ("torch", "unet3d")}


def nodes(model: ir.Model) -> dict[str, ir.Node]:
    return {site.node.name: site.node for site in spatial_dropouts(model)}


def seeds_by_layer(model: ir.Model) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in sorted(nodes(model)):
        found.setdefault(name.split(":")[0].split("/")[-1], []).append(op.read(nodes(model)[name]).seed)
    return found


def run(model: ir.Model, x: np.ndarray, **switches: Any) -> np.ndarray:
    sess = session(model, kernel="python")
    feeds = {name: np.array(value) for name, value in switches.items()}
    first = sess.get_inputs()[0]
    wanted = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}[first.type]
    return sess.run(None, {first.name: x.astype(wanted), **feeds})[0]


def close(got: np.ndarray, expected: Any) -> None:
    expected = keras.ops.convert_to_numpy(expected)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(expected).max())))
