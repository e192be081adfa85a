"""One-node models with any attributes, right or wrong, and sessions that run them with the native kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, TensorProto, helper

from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import reference, spec

ELEMENT = {
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


def drop_node(x: str, y: str, mask: str | None = "", name: str = "drop1", **attributes: Any) -> onnx.NodeProto:
    """Return a SpatialDropout node; an attribute that is None is left out, ``mask`` None lists Y alone."""
    values = {"axes": [1], "ratio": 0.5, "seed": 7, "scale": 0.0, "rng": "philox", "strata": 1} | attributes
    outputs = [y] if mask is None else [y, mask]
    node = helper.make_node(spec.OP_TYPE, [x, "training_mode", "step"], outputs, name=name, domain=spec.DOMAIN)
    for key, value in values.items():
        if value == []:
            node.attribute.append(AttributeProto(name=key, type=AttributeProto.INTS))
        elif value is not None:
            node.attribute.append(helper.make_attribute(key, value))
    return node


def make_model(
    nodes: Sequence[onnx.NodeProto],
    dtype: str = "float32",
    shape: Sequence[int | str | None] | None = None,
    outputs: Sequence[str] = ("y",),
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 18,
) -> onnx.ModelProto:
    """Return a model from inputs x, training_mode and step to ``outputs``; "mask" is bool, all others of x's type.

    bfloat16, which NumPy feeds cannot carry, goes in and out as float32, through casts around the nodes.
    """
    inputs = [
        helper.make_tensor_value_info("x", ELEMENT[dtype], shape),
        helper.make_tensor_value_info("training_mode", TensorProto.BOOL, None),
        helper.make_tensor_value_info("step", TensorProto.INT64, None),
    ]
    masks = [name for name in outputs if name.startswith("mask")]
    values = [name for name in outputs if name not in masks]
    nodes = list(nodes)
    if dtype == "bfloat16":
        inputs[0] = helper.make_tensor_value_info("x_in", TensorProto.FLOAT, shape)
        nodes.insert(0, helper.make_node("Cast", ["x_in"], ["x"], to=TensorProto.BFLOAT16))
        nodes += [helper.make_node("Cast", [name], [f"{name}_out"], to=TensorProto.FLOAT) for name in values]
    kinds = {name: (name, ELEMENT[dtype]) for name in values} | {name: (name, TensorProto.BOOL) for name in masks}
    if dtype == "bfloat16":
        kinds |= {name: (f"{name}_out", TensorProto.FLOAT) for name in values}
    out = [helper.make_tensor_value_info(*kinds[name], None) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, out)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(spec.DOMAIN, 1)]
    imports += [helper.make_opsetid(domain, 1) for domain in {f.domain for f in functions} - {spec.DOMAIN}]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


def make_session(model: onnx.ModelProto, threads: int = 1, **options: Any) -> onnxruntime.InferenceSession:
    """Return a silent CPU session with the native kernel registered."""
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    session_options.intra_op_num_threads = threads
    for name, value in options.items():
        setattr(session_options, name, value)
    native.register(session_options)
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, x: np.ndarray, training: bool = True, step: Any = 3) -> list[np.ndarray]:
    """Run a model of ``make_model``; bfloat16 arrays are carried as float32 and come back as bfloat16."""
    name = session.get_inputs()[0].name
    feeds = {"training_mode": np.array(training), "step": np.atleast_1d(np.asarray(step, np.int64))}
    outputs = session.run(None, feeds | {name: x.astype(np.float32) if name == "x_in" else x})
    return [y.astype(x.dtype) if name == "x_in" and y.dtype == np.float32 else y for y in outputs]


def assert_right(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None, **case: Any) -> None:
    """Compare with the reference, bit for bit; NaNs compare as NaNs."""
    expected, expected_mask = reference.spatial_dropout(x, **case)
    assert y.shape == expected.shape
    assert y.dtype == expected.dtype
    if mask is not None:
        np.testing.assert_array_equal(mask, expected_mask, strict=True)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(y), nan)
    words = f"u{x.dtype.itemsize}"
    np.testing.assert_array_equal(np.where(nan, 0, y.view(words)), np.where(nan, 0, expected.view(words)))


def numbers(shape: Sequence[int], dtype: str, seed: int = 0) -> np.ndarray:
    """Return numbers of many magnitudes, among them subnormals, infinities, NaNs and both zeros."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-24, 12, shape)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 6e-8, -1e-40, 65504.0])
    flat = x.reshape(-1)
    where = rng.random(flat.size) < 0.05
    flat[where] = rng.choice(special, int(where.sum()))
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(spec.DTYPES[dtype])
