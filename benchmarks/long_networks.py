"""Long networks with dropout, for measurements: not one node after the other, as chains.py has them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["cnn", "transformer"]

_WIDTH = 8


class _Graph:
    """Nodes, weights and types under construction; names are numbered after what they are."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.infos: list[onnx.ValueInfoProto] = []

    def weight(self, *shape: int) -> str:
        array = np.full(shape, 0.5, np.float32)
        array.reshape(-1)[::3] = 0.25 + len(self.weights) % 7
        self.weights.append(numpy_helper.from_array(array, f"weight_{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op_type: str, *inputs: str, dims: tuple[str | int, ...] = (), **attributes: object) -> str:
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name, **attributes))
        if dims:
            self.infos.append(helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, dims))
        return f"{name}_out"

    def model(self, last: str, shape: tuple[str | int, ...]) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [last], ["y"], "last"))
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
        fixed = {"ratio": np.array(0.1, np.float32), "training_mode": np.array(True), "shape": np.array([0, -1, 2, 4])}
        fixed |= {
            "merged": np.array([0, -1, _WIDTH]),
            "half": np.array(0.5, np.float32),
            "one": np.array(1, np.float32),
        }
        read = {name for node in self.nodes for name in node.input}
        self.weights += [numpy_helper.from_array(array, name) for name, array in fixed.items() if name in read]
        graph = helper.make_graph(self.nodes, "net", values[:1], values[1:], self.weights, value_info=self.infos)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def cnn(nodes: int) -> onnx.ModelProto:
    """Return residual blocks of Conv, BatchNormalization, Relu, Dropout and Add, between two Transposes."""
    graph, dims = _Graph(), ("N", 4, "H", "W")
    x = graph.add("Transpose", "x", perm=[0, 3, 1, 2], dims=dims)
    for _ in range(nodes // 5):
        kernel = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1}
        y = graph.add("Conv", x, graph.weight(4, 4, 1, 1), graph.weight(4), dims=dims, **kernel)
        norm = [graph.weight(4) for _ in range(4)]
        y = graph.add("BatchNormalization", y, *norm, dims=dims, epsilon=1e-3, momentum=0.9)
        y = graph.add("Dropout", graph.add("Relu", y, dims=dims), "ratio", "training_mode", dims=dims)
        x = graph.add("Add", x, y, dims=dims)
    return graph.model(graph.add("Transpose", x, perm=[0, 2, 3, 1]), ("N", "H", "W", 4))


def transformer(nodes: int) -> onnx.ModelProto:
    """Return encoder layers of two heads, with dropout of the attention, of both sums and inside the feed-forward."""
    graph = _Graph()
    x = "x"
    for _ in range(nodes // 41):
        x = _feed_forward(graph, _attention(graph, x))
    return graph.model(x, ("N", "L", _WIDTH))


def _linear(graph: _Graph, x: str) -> str:
    return graph.add("Add", graph.add("MatMul", x, graph.weight(_WIDTH, _WIDTH)), graph.weight(_WIDTH))


def _dropout(graph: _Graph, x: str) -> str:
    return graph.add("Dropout", x, "ratio", "training_mode")


def _norm(graph: _Graph, x: str) -> str:
    return graph.add("LayerNormalization", x, graph.weight(_WIDTH), graph.weight(_WIDTH), axis=-1)


def _attention(graph: _Graph, x: str) -> str:
    normed = _norm(graph, x)
    heads = []
    for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        split = graph.add("Reshape", _linear(graph, normed), "shape")
        heads.append(graph.add("Transpose", split, perm=order))
    scores = graph.add("Mul", graph.add("MatMul", heads[0], heads[1]), "half")
    mixed = graph.add("MatMul", _dropout(graph, graph.add("Softmax", scores, axis=-1)), heads[2])
    joined = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), "merged")
    return graph.add("Add", x, _dropout(graph, _linear(graph, joined)))


def _feed_forward(graph: _Graph, x: str) -> str:
    y = _linear(graph, _norm(graph, x))
    tail = graph.add("Add", graph.add("Erf", graph.add("Mul", y, "half")), "one")
    y = graph.add("Mul", graph.add("Mul", y, tail), "half")
    return graph.add("Add", x, _dropout(graph, _linear(graph, _dropout(graph, y))))
