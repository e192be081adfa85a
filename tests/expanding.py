"""What the tests of expanded models share: running one, and exact binomial bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime

__all__ = ["assert_binomial", "binomial_tail", "draw", "ort_session", "with_float_ends"]


def ort_session(model: onnx.ModelProto, level: str = "ORT_ENABLE_ALL") -> onnxruntime.InferenceSession:
    """Return a session without kernels of ours, at an optimisation level."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def draw(session: onnxruntime.InferenceSession, x: np.ndarray, **feeds: Any) -> list[np.ndarray]:
    """Run a session; ``feeds`` that the model has no input for are left out."""
    names = [i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())]
    given = {name: value for name, value in {"x": x, **feeds}.items() if name in names}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(value)) for name, value in given.items()}
    return [value.numpy() for value in session.run_with_ort_values(None, values)]


def binomial_tail(successes: int, trials: int, p: float) -> float:
    """Return the smaller of the two exact tails of Binomial(trials, p) at ``successes``."""
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(p) + (trials - k) * math.log1p(-p)
        for k in range(trials + 1)
    ]  # fmt: skip
    weights = np.exp(logs)
    return float(min(weights[: successes + 1].sum(), weights[successes:].sum()))


def assert_binomial(successes: int, trials: int, p: float, alpha: float = 1e-6) -> None:
    """Assert that ``successes`` is no surprise: both exact tails of Binomial(trials, p) exceed ``alpha`` / 2."""
    tail = binomial_tail(successes, trials, p)
    assert tail > alpha / 2, f"{successes} of {trials} at p = {p}: tail {tail:.2e}"


def with_float_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with float32 in place of the type of its first input and output; Casts stand in between.

    onnxruntime's Python API takes no bfloat16 arrays. Every bfloat16 number is a float32.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, (x, y) = result.graph, (model.graph.input[0], model.graph.output[0])
    inner = {x.name: f"{x.name}_inner", y.name: f"{y.name}_inner"}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    kind = x.type.tensor_type.elem_type
    graph.node.insert(0, onnx.helper.make_node("Cast", [x.name], [inner[x.name]], to=kind))
    graph.node.append(onnx.helper.make_node("Cast", [inner[y.name]], [y.name], to=onnx.TensorProto.FLOAT))
    for value in (graph.input[0], graph.output[0]):
        within = graph.value_info.add()
        within.CopyFrom(value)
        within.name = inner[value.name]
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return result
