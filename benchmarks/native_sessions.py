"""Sessions for the benchmarks, with their inputs and outputs bound to buffers so that nothing is copied besides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import spec

#: Entries of the masks that ``draw_run`` draws.
DRAWN = 2**20
ELEMENT = {"float16": 10, "bfloat16": 16, "float32": 1, "float64": 11}


def model_of(nodes: Sequence[onnx.NodeProto], element: int, shape: Sequence[int]) -> onnx.ModelProto:
    """Return a model x, training_mode, step -> y."""
    inputs = [
        helper.make_tensor_value_info("x", element, shape),
        helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []),
        helper.make_tensor_value_info("step", TensorProto.INT64, [1]),
    ]
    graph = helper.make_graph(list(nodes), "g", inputs, [helper.make_tensor_value_info("y", element, shape)])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(spec.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def drop_node(
    x: str,
    y: str,
    axes: Sequence[int],
    ratio: float,
    seed: int = 7,
    scale: float = 0.0,
    rng: str = "philox",
    mask: str = "",
) -> onnx.NodeProto:
    """Return a SpatialDropout node."""
    attributes = {"axes": list(axes), "ratio": ratio, "seed": seed, "scale": scale, "rng": rng}
    names = [x, "training_mode", "step"]
    return helper.make_node(spec.OP_TYPE, names, [y, mask], name=y, domain=spec.DOMAIN, **attributes)


def drop_model(
    dtype: str, shape: Sequence[int], axes: Sequence[int], ratio: float, scale: float = 0.0
) -> onnx.ModelProto:
    """Return a model of one node."""
    return model_of([drop_node("x", "y", axes, ratio, scale=scale)], ELEMENT[dtype], shape)


def session_of(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Return a silent session with the native kernel."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    native.register(options)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bound_run(
    model: onnx.ModelProto,
    element: int,
    shape: Sequence[int],
    x: np.ndarray,
    y: np.ndarray,
    threads: int,
    training: bool = True,
) -> Callable[[], object]:
    """Return a function that runs ``model`` from the bytes of ``x`` to the bytes of ``y``."""
    session = session_of(model, threads)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, element, list(shape), x.ctypes.data)
    binding.bind_output("y", "cpu", 0, element, list(shape), y.ctypes.data)
    binding.bind_cpu_input("training_mode", np.array(training))
    binding.bind_cpu_input("step", np.array([3], np.int64))
    keep = (x, y)
    return lambda: (session.run_with_iobinding(binding), keep)


def node_chain(count: int) -> Callable[[], object]:
    """Return a run of ``count`` small nodes in a row."""
    names = ["x", *(f"v{index}" for index in range(1, count)), "y"]
    nodes = [drop_node(names[i], names[i + 1], [1, 2], 0.2, seed=i) for i in range(count)]
    session = session_of(model_of(nodes, 1, (1, 16, 16, 8)), 1)
    x = np.ones((1, 16, 16, 8), np.float32)
    feeds = {"x": x, "training_mode": np.array(True), "step": np.array([3], np.int64)}
    return lambda: session.run(None, feeds)


def draw_run(rng: str, rows: int, path: str) -> Callable[[], object]:
    """Return a run that draws a mask of DRAWN entries in ``rows`` rows and nothing else: X has no elements."""
    shape = (rows, DRAWN // rows, 0)
    model = model_of([drop_node("x", "y", [2], 0.2, rng=rng, mask="mask")], 1, shape)
    model.graph.input[2].type.tensor_type.shape.dim[0].dim_value = rows
    model.graph.output.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, (*shape[:2], 1)))
    before = os.environ.get("ONNX_SPATIALDROP_CPU")
    os.environ["ONNX_SPATIALDROP_CPU"] = path
    session = session_of(model, 1)
    del os.environ["ONNX_SPATIALDROP_CPU"]
    if before is not None:
        os.environ["ONNX_SPATIALDROP_CPU"] = before
    mask = np.zeros((*shape[:2], 1), np.bool_)
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.zeros(shape, np.float32))
    binding.bind_cpu_input("training_mode", np.array(True))
    binding.bind_cpu_input("step", np.arange(rows))
    binding.bind_output("y", "cpu")
    binding.bind_output("mask", "cpu", 0, TensorProto.BOOL, list(mask.shape), mask.ctypes.data)
    return lambda: (session.run_with_iobinding(binding), mask)
