"""Steps of random graphs: layers, quantised and recurrent ones among them, padding, counts, branches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from montecarlo.growing import ROWS, Graph
from montecarlo.random_views import unary
from onnx import TensorProto, helper


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
        return unary(g, x)
    made = int(g.rng.integers(2, 5))
    return g.op("Conv", x, g.floats(made, shape[1], 3), pads=[1, 1], shape=(shape[0], made, shape[2]))


def _recurrent(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 3:
        return unary(g, x)
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
        return unary(g, x)
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


LAYERS: tuple[Callable[[Graph, str], str], ...] = (
    _normalise,
    _softmax,
    _cumsum,
    _quantised,
    _quantised_matmul,
    _expand,
    _count,
    _numbered,
    _topk,
    _pad,
    _conv,
    _recurrent,
    _branch,
    _squeeze,
)
