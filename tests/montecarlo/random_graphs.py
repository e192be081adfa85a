"""Random graphs with dropout in them, for the proof of the batch axis: some treat samples one by one, many do not.

The oracle is running: whole runs with a step a sample are what draws laid behind each other have to equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]

#: The batch that graphs are made and run with.
ROWS = 3


@dataclass
class Graph:
    """A graph under construction, with the value of every tensor's shape for ROWS samples."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, Sizes] = field(default_factory=dict)
    count: int = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def weight(self, array: Array) -> str:
        name = self.name("w")
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self.shapes[name] = array.shape
        return name

    def ints(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def floats(self, *shape: int) -> str:
        return self.weight(self.rng.standard_normal(shape).astype(np.float32))

    def op(
        self, kind: str, *inputs: str, shape: Sizes | None = None, domain: str = "", outputs: int = 1, **given: Any
    ) -> str:
        names = [self.name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, names[0], domain=domain, **given))
        if shape is not None:
            self.shapes[names[0]] = shape
        return names[0]

    def drop(self, x: str) -> str:
        """Put a SpatialDropout node after x."""
        rank = len(self.shapes[x])
        axes = [axis for axis in range(1, rank) if self.rng.random() < 0.4]
        if self.rng.random() < 0.03:
            axes = [0]
        y, mask = self.name("dropped"), self.name("mask")
        node = helper.make_node(
            "SpatialDropout", [x, "training_mode", "step"], [y, mask], y, domain="onnx_spatialdrop",
            ratio=0.4, seed=int(self.rng.integers(1, 2**62)), scale=0.0, rng="philox",
        )  # fmt: skip
        node.attribute.append(helper.make_attribute("axes", axes, attr_type=onnx.AttributeProto.INTS))
        self.nodes.append(node)
        self.shapes[y] = self.shapes[x]
        return y


def _unary(g: Graph, x: str) -> str:
    kind = g.rng.choice(["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Softplus", "Identity", "Erf", "Elu"])
    return g.op(str(kind), x, shape=g.shapes[x])


def _with_constant(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    kept = [dim if g.rng.random() < 0.6 else 1 for dim in shape]
    kept[0] = shape[0] if g.rng.random() < 0.08 else 1
    start = int(g.rng.integers(0, len(shape)))
    return g.op(str(g.rng.choice(["Add", "Mul", "Sub", "Max"])), x, g.floats(*kept[start:]), shape=tuple(shape))


def _with_itself(g: Graph, x: str) -> str:
    other = _unary(g, x)
    if g.rng.random() < 0.3 and len(g.shapes[x]) > 1:
        axis = int(g.rng.integers(0, len(g.shapes[x])))
        other = _reduce(g, x, axis, True)
    return g.op("Add", x, other, shape=g.shapes[x])


def _reduce(g: Graph, x: str, axis: int, keep: bool) -> str:
    shape = list(g.shapes[x])
    shape[axis : axis + 1] = [1] if keep else []
    kind = str(g.rng.choice(["ReduceMean", "ReduceSum", "ReduceMax"]))
    return g.op(kind, x, g.ints(axis), keepdims=int(keep), shape=tuple(shape))


def _reduction(g: Graph, x: str) -> str:
    if len(g.shapes[x]) < 3:
        return _unary(g, x)
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(1, len(g.shapes[x])))
    return _reduce(g, x, axis, axis == 0 or bool(g.rng.random() < 0.4))


def _matmul(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) < 2:
        return _unary(g, x)
    width = int(g.rng.integers(2, 6))
    return g.op("MatMul", x, g.floats(shape[-1], width), shape=(*shape[:-1], width))


def _gemm(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 2:
        return _matmul(g, x)
    width = int(g.rng.integers(2, 6))
    bias = g.floats(shape[0], width) if g.rng.random() < 0.1 else g.floats(width)
    return g.op("Gemm", x, g.floats(width, shape[1]), bias, transB=1, shape=(shape[0], width))


def _with_samples(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 2:
        return _unary(g, x)
    if g.rng.random() < 0.5:
        product = g.op("MatMul", x, g.op("Transpose", x, perm=[1, 0]), shape=(shape[0], shape[0]))
        return g.op("MatMul", product, x, shape=shape)
    return g.op("Softmax", x, axis=0, shape=shape)


def _attention(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 3:
        return _matmul(g, x)
    scores = g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1]), shape=(shape[0], shape[1], shape[1]))
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), x, shape=shape)


def _transpose(g: Graph, x: str) -> str:
    rank = len(g.shapes[x])
    order = [0, *(1 + g.rng.permutation(rank - 1))] if g.rng.random() < 0.8 else list(g.rng.permutation(rank))
    order = [int(axis) for axis in order]
    return g.op("Transpose", x, perm=order, shape=tuple(g.shapes[x][axis] for axis in order))


def _reshape(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    inner = int(np.prod(shape[1:]))
    options: list[tuple[list[int], Sizes]] = [([0, -1], (shape[0], inner)), ([-1, inner], (shape[0], inner))]
    options.append(([shape[0], -1], (shape[0], inner)))
    if len(shape) > 2:
        options.append(([-1, shape[-1]], (int(np.prod(shape[:-1])), shape[-1])))
        options.append(([-1, int(np.prod(shape[:1])) * shape[1]], (int(np.prod(shape[2:])), shape[0] * shape[1])))
    if inner % 2 == 0:
        options.append(([0, 2, -1], (shape[0], 2, inner // 2)))
        options.append(([-1, 2, inner // 2], (shape[0], 2, inner // 2)))
    if (shape[0] * inner) % 4 == 0:
        options.append(([-1, 4], (shape[0] * inner // 4, 4)))
    target, made = options[int(g.rng.integers(0, len(options)))]
    return g.op("Reshape", x, g.ints(*target), shape=made)


def _reshape_by_shape(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    source = x if g.rng.random() < 0.5 else "x"
    size = g.op("Gather", g.op("Shape", source), g.ints(0))
    if g.rng.random() < 0.3:
        size = g.op("Mul", size, g.ints(2))
    target = g.op("Concat", size, g.ints(-1), axis=0)
    times = 2 if g.nodes[-2].op_type == "Mul" else 1
    lead = times * (shape[0] if source == x else ROWS)
    total = int(np.prod(shape))
    if total % lead:
        return _unary(g, x)
    return g.op("Reshape", x, target, shape=(lead, total // lead))


def _flatten(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    axis = 1 if g.rng.random() < 0.8 else int(g.rng.integers(0, len(shape)))
    return g.op("Flatten", x, axis=axis, shape=(int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))


def _slice(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(0, len(shape)))
    end = shape[axis] if axis == 0 and g.rng.random() < 0.5 else max(1, shape[axis] - 1)
    given = 2**31 - 1 if end == shape[axis] else end
    shape[axis] = end
    return g.op("Slice", x, g.ints(0), g.ints(given), g.ints(axis), shape=tuple(shape))


def _gather(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(0, len(shape)))
    picked = [int(i) for i in g.rng.integers(0, shape[axis], 2)]
    shape[axis] = 2
    return g.op("Gather", x, g.ints(*picked), axis=axis, shape=tuple(shape))


def _concat(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(0, len(shape)))
    other = _unary(g, x)
    shape[axis] *= 2
    return g.op("Concat", x, other, axis=axis, shape=tuple(shape))


def _normalise(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    choice = g.rng.integers(0, 3)
    if choice == 0 or len(shape) < 3:
        axis = int(g.rng.integers(0, len(shape))) if g.rng.random() < 0.2 else len(shape) - 1
        scale = g.weight(np.ones(shape[axis:], np.float32))
        return g.op("LayerNormalization", x, scale, axis=axis, shape=shape)
    ones, zeros = (g.weight(np.full(shape[1], value, np.float32)) for value in (1, 0))
    if choice == 1:
        return g.op("InstanceNormalization", x, ones, zeros, shape=shape)
    return g.op("BatchNormalization", x, ones, zeros, zeros, ones, shape=shape)


def _softmax(g: Graph, x: str) -> str:
    axis = int(g.rng.integers(0, len(g.shapes[x]))) if g.rng.random() < 0.3 else -1
    return g.op(str(g.rng.choice(["Softmax", "LogSoftmax"])), x, axis=axis, shape=g.shapes[x])


def _cumsum(g: Graph, x: str) -> str:
    axis = int(g.rng.integers(0, len(g.shapes[x])))
    return g.op("CumSum", x, g.weight(np.array(axis, np.int64)), shape=g.shapes[x])


def _quantised(g: Graph, x: str) -> str:
    """Fake quantisation: static, or dynamic with one scale for the whole batch."""
    shape = g.shapes[x]
    if g.rng.random() < 0.5 and not any(node.op_type == "If" for node in g.nodes):
        scale, zero = g.weight(np.array(0.05, np.float32)), g.weight(np.array(3, np.int8))
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, zero), scale, zero, shape=shape)
    q = g.op("DynamicQuantizeLinear", x, outputs=3)
    scale, zero = g.nodes[-1].output[1:]
    return g.op("DequantizeLinear", q, scale, zero, shape=shape)


def _quantised_matmul(g: Graph, x: str) -> str:
    """A dynamically quantised layer, as onnxruntime.quantization writes it."""
    shape = g.shapes[x]
    width = int(g.rng.integers(2, 5))
    q = g.op("DynamicQuantizeLinear", x, outputs=3)
    scale, zero = g.nodes[-1].output[1:]
    weights = g.weight(g.rng.integers(-127, 128, (shape[-1], width)).astype(np.int8))
    product = g.op("MatMulInteger", q, weights, zero, g.weight(np.array(0, np.int8)))
    scales = g.op("Mul", scale, g.weight(np.array(0.01, np.float32)))
    return g.op("Mul", g.op("Cast", product, to=TensorProto.FLOAT), scales, shape=(*shape[:-1], width))


def _expand(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    rows = g.op("Gather", g.op("Shape", "x"), g.ints(0))
    target = g.op("Concat", rows, g.ints(*shape[1:]), axis=0) if len(shape) > 1 else rows
    made = g.op("Expand", g.floats(*([1] * len(shape))), target, shape=(ROWS, *shape[1:]))
    return g.op("Add", x, made, shape=shape) if shape[0] == ROWS else x


def _count(g: Graph, x: str) -> str:
    """Divide by the number of samples, or by a size that is none."""
    index = 0 if g.rng.random() < 0.5 else 1
    size = g.op("Cast", g.op("Gather", g.op("Shape", "x"), g.ints(index)), to=TensorProto.FLOAT)
    return g.op("Div", x, size, shape=g.shapes[x])


def _numbered(g: Graph, x: str) -> str:
    """Add each sample's number."""
    shape = g.shapes[x]
    rows = g.op("Squeeze", g.op("Gather", g.op("Shape", x), g.ints(0)))
    zero, one = (g.weight(np.array(number, np.int64)) for number in (0, 1))
    numbers = g.op("Cast", g.op("Range", zero, rows, one), to=TensorProto.FLOAT)
    target = g.ints(-1, *([1] * (len(shape) - 1)))
    return g.op("Add", x, g.op("Reshape", numbers, target), shape=shape)


def _topk(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = int(g.rng.integers(0, len(shape)))
    shape[axis] = max(1, shape[axis] - 1)
    return g.op("TopK", x, g.ints(shape[axis]), axis=axis, outputs=2, shape=tuple(shape))


def _pad(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = int(g.rng.integers(0, len(shape))) if g.rng.random() < 0.2 else len(shape) - 1
    pads = [0] * (2 * len(shape))
    pads[axis] = 1
    shape[axis] += 1
    return g.op("Pad", x, g.ints(*pads), shape=tuple(shape))


def _conv(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 3:
        return _unary(g, x)
    made = int(g.rng.integers(2, 5))
    return g.op("Conv", x, g.floats(made, shape[1], 3), pads=[1, 1], shape=(shape[0], made, shape[2]))


def _recurrent(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 3:
        return _unary(g, x)
    turned = g.op("Transpose", x, perm=[1, 0, 2]) if g.rng.random() < 0.8 else x
    hidden = 2
    weights = [g.floats(1, 4 * hidden, shape[2]), g.floats(1, 4 * hidden, hidden)]
    y = g.op("LSTM", turned, *weights, hidden_size=hidden)
    y = g.op("Squeeze", y, g.ints(1))
    if turned == x:
        return g.op("Identity", y, shape=(shape[0], shape[1], hidden))
    return g.op("Transpose", y, perm=[1, 0, 2], shape=(shape[0], shape[1], hidden))


def _branch(g: Graph, x: str) -> str:
    """An If on the largest entry of the batch, or on a constant."""
    if any(node.op_type == "QuantizeLinear" for node in g.nodes):  # ONNX Runtime 1.32 ends the process there
        return _unary(g, x)
    if g.rng.random() < 0.5:
        top = g.op("ReduceMax", x, keepdims=0)
        condition = g.op("Greater", top, g.weight(np.array(1.0, np.float32)))
    else:
        condition = g.weight(np.array(bool(g.rng.integers(0, 2))))
    graphs = []
    for kind in ("Neg", "Relu"):
        out = g.name("branch")
        info = onnx.ValueInfoProto(name=out)
        info.type.tensor_type.elem_type = TensorProto.FLOAT
        graphs.append(helper.make_graph([helper.make_node(kind, [x], [out])], kind, [], [info]))
    return g.op("If", condition, then_branch=graphs[0], else_branch=graphs[1], shape=g.shapes[x])


def _squeeze(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = int(g.rng.integers(1, len(shape) + 1))
    wide = g.op("Unsqueeze", x, g.ints(axis), shape=(*shape[:axis], 1, *shape[axis:]))
    return wide if len(shape) < 3 else g.op("Squeeze", wide, g.ints(axis), shape=tuple(shape))


MAKERS: tuple[Callable[[Graph, str], str], ...] = (
    _unary, _with_constant, _with_itself, _reduction, _matmul, _gemm, _with_samples, _attention, _transpose, _reshape,
    _reshape_by_shape, _flatten, _slice, _gather, _concat, _normalise, _softmax, _cumsum, _quantised,
    _quantised_matmul, _expand, _count, _numbered, _topk, _pad, _conv, _recurrent, _branch, _squeeze,
)  # fmt: skip


def random_model(seed: int) -> onnx.ModelProto:
    """Return a model ``x`` [N, ...] -> ``y`` with one to three SpatialDropout nodes and three to eight other steps."""
    rng = np.random.default_rng(seed)
    g = Graph(rng)
    shape = (ROWS, *(int(size) for size in rng.integers(2, 5, int(rng.integers(1, 4)))))
    g.shapes["x"] = shape
    steps = int(rng.integers(3, 9))
    drops = {int(at) for at in rng.integers(0, steps, int(rng.integers(1, 4)))}
    value = "x"
    for step in range(steps):
        if step in drops:
            value = g.drop(value)
        made = MAKERS[int(rng.integers(0, len(MAKERS)))](g, value)
        if 1 <= len(g.shapes[made]) <= 5 and 0 < np.prod(g.shapes[made]) < 4000:
            value = made
    y = g.op("Identity", value, shape=g.shapes[value])
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape[1:]]),
        helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []),
        helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]),
    ]
    output = onnx.ValueInfoProto(name=y)
    output.type.tensor_type.elem_type = TensorProto.FLOAT
    switches = [numpy_helper.from_array(np.array(False), "training_mode")]
    switches.append(numpy_helper.from_array(np.array([-1], np.int64), "step"))
    graph = helper.make_graph(g.nodes, "random", inputs, [output], g.weights + switches)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("onnx_spatialdrop", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def feed(model: onnx.ModelProto, seed: int) -> Array:
    """Return values for ``x``."""
    dims = [dim.dim_value or ROWS for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)
