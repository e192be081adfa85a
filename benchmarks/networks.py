"""Small networks of known shapes with random weights, with SpatialDropout nodes or without, for the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["NETWORKS", "Network"]


class Network:
    """Nodes and weights under construction; ``drop`` False leaves dropout out."""

    def __init__(self, drop: bool, opset: int = 20) -> None:
        self.dropouts, self._drop, self._opset = 0, drop, opset
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)
        self._names = 0

    def _name(self, role: str) -> str:
        self._names += 1
        return f"{role}_{self._names}"

    def constant(self, array: Any) -> str:
        """Return the name of an initializer."""
        name = self._name("constant")
        self._weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int) -> str:
        """Return the name of random weights, scaled so that activations keep their size."""
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.01
        return self.constant((self._random.standard_normal(shape) * scale).astype(np.float32))

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        name = self._name(op_type.lower())
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: Sequence[int], stride: int = 1, dilation: int = 1) -> str:
        """Append a convolution that keeps sizes but for its stride."""
        pads = [(size - 1) * dilation // 2 for size in kernel] * 2
        return self.add(
            "Conv", x, self.weight(outputs, inputs, *kernel), self.weight(outputs), kernel_shape=list(kernel),
            pads=pads, strides=[stride] * len(kernel), dilations=[dilation] * len(kernel),
        )  # fmt: skip

    def norm(self, x: str, channels: int) -> str:
        """Append a batch norm."""
        ones, zeros = (self.constant(np.full(channels, number, np.float32)) for number in (1, 0))
        return self.add("BatchNormalization", x, ones, zeros, zeros, ones)

    def drop(self, x: str, axes: Sequence[int], ratio: float) -> str:
        """Append a SpatialDropout node."""
        if not self._drop:
            return x
        self.dropouts += 1
        name = f"drop_{self.dropouts}"
        node = helper.make_node(
            "SpatialDropout", [x, "training_mode", "step"], [name, f"{name}_mask"], name=name,
            domain="onnx_spatialdrop", ratio=ratio, seed=1000 + self.dropouts, scale=1 / (1 - ratio),
        )  # fmt: skip
        node.attribute.append(helper.make_attribute("axes", list(axes), attr_type=onnx.AttributeProto.INTS))
        self._nodes.append(node)
        return name

    def model(self, y: str, x_shape: Sequence[int | str], y_shape: Sequence[int | str]) -> onnx.ModelProto:
        """Return the model from ``x`` to ``y``."""
        inputs, weights = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)], list(self._weights)
        imports = [helper.make_opsetid("", self._opset)]
        if self._drop:
            inputs.append(helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []))
            inputs.append(helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]))
            weights.append(numpy_helper.from_array(np.array(False), "training_mode"))
            weights.append(numpy_helper.from_array(np.array([-1]), "step"))
            imports.append(helper.make_opsetid("onnx_spatialdrop", 1))
        output = helper.make_tensor_value_info(y, TensorProto.FLOAT, y_shape)
        graph = helper.make_graph(self._nodes, "network", inputs, [output], weights)
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=imports, ir_version=10))


def densenet(drop: bool) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """DenseNet-121's layout for 32 x 32 images, 16 channels a layer: 58 spatial dropouts."""
    net, channels = Network(drop), 64
    y = net.add("Relu", net.conv("x", 3, 64, [3, 3], stride=2))
    for block, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            z = net.conv(net.add("Relu", net.norm(y, channels)), channels, 64, [1, 1])
            z = net.conv(net.add("Relu", net.norm(z, 64)), 64, 16, [3, 3])
            y = net.add("Concat", y, net.drop(z, [2, 3], 0.2), axis=1)
            channels += 16
        if block < 3:
            y = net.conv(net.add("Relu", net.norm(y, channels)), channels, channels // 2, [1, 1])
            channels //= 2
            y = net.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.add("Flatten", net.add("GlobalAveragePool", y))
    y = net.add("Gemm", y, net.weight(channels, 10), net.weight(10))
    return net.model(y, ["N", 3, 32, 32], ["N", 10]), (3, 32, 32)


def erfnet(drop: bool) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """ERFNet's encoder and a thin decoder for 64 x 128 images: 20 spatial dropouts."""
    net = Network(drop)

    def block(y: str, channels: int, dilation: int, ratio: float) -> str:
        before = y
        for spread in (1, dilation):
            y = net.add("Relu", net.conv(y, channels, channels, [3, 1], dilation=spread))
            y = net.norm(net.conv(y, channels, channels, [1, 3], dilation=spread), channels)
            y = net.add("Relu", y) if spread == 1 and before else y
        return net.add("Relu", net.add("Add", net.drop(y, [2, 3], ratio), before))

    y = net.add("Relu", net.conv("x", 3, 16, [3, 3], stride=2))
    y = net.add("Relu", net.conv(y, 16, 64, [3, 3], stride=2))
    for _ in range(5):
        y = block(y, 64, 1, 0.03)
    y = net.add("Relu", net.conv(y, 64, 128, [3, 3], stride=2))
    for dilation in (2, 4, 8, 16) * 2:
        y = block(y, 128, dilation, 0.3)
    y = net.add("Relu", net.conv(y, 128, 64, [1, 1]))
    for _ in range(7):
        y = block(y, 64, 1, 0.1)
    return net.model(net.conv(y, 64, 20, [1, 1]), ["N", 3, 64, 128], ["N", 20, 8, 16]), (3, 64, 128)


def tcn(drop: bool) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A temporal convolutional network of 8 levels, 64 channels, 256 steps: 16 spatial dropouts."""
    net = Network(drop)
    y = net.conv("x", 64, 64, [1])
    for level in range(8):
        before = y
        for _ in range(2):
            y = net.drop(net.add("Relu", net.conv(y, 64, 64, [3], dilation=2**level)), [2], 0.2)
        y = net.add("Relu", net.add("Add", y, before))
    y = net.add("Flatten", net.add("GlobalAveragePool", y))
    return net.model(net.add("Gemm", y, net.weight(64, 10), net.weight(10)), ["N", 64, 256], ["N", 10]), (64, 256)


def encoder(drop: bool) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A transformer's encoder of 12 layers of width 128, batch and length open: 36 element-wise dropouts."""
    net, width, heads = Network(drop), 128, 4
    split, join = net.constant(np.array([0, 0, heads, width // heads])), net.constant(np.array([0, 0, width]))
    scale = net.constant(np.float32((width // heads) ** -0.5))

    def linear(x: str, inputs: int, outputs: int) -> str:
        return net.add("Add", net.add("MatMul", x, net.weight(inputs, outputs)), net.weight(outputs))

    def norm(x: str) -> str:
        ones, zeros = (net.constant(np.full(width, number, np.float32)) for number in (1, 0))
        return net.add("LayerNormalization", x, ones, zeros, axis=-1)

    y = "x"
    for _ in range(12):
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        q, k, v = (net.add("Transpose", net.add("Reshape", linear(y, width, width), split), perm=p) for p in orders)
        weights = net.add("Softmax", net.add("Mul", net.add("MatMul", q, k), scale), axis=-1)
        mixed = net.add("Transpose", net.add("MatMul", net.drop(weights, [], 0.1), v), perm=[0, 2, 1, 3])
        y = norm(net.add("Add", net.drop(linear(net.add("Reshape", mixed, join), width, width), [], 0.1), y))
        z = linear(net.add("Relu", linear(y, width, 4 * width)), 4 * width, width)
        y = norm(net.add("Add", net.drop(z, [], 0.1), y))
    return net.model(y, ["N", "L", width], ["N", "L", width]), (64, width)


def mlp(drop: bool) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Two hidden layers of 128: 2 element-wise dropouts."""
    net, y = Network(drop), "x"
    for inputs in (64, 128):
        y = net.add("Relu", net.add("Gemm", y, net.weight(inputs, 128), net.weight(128)))
        y = net.drop(y, [], 0.3)
    return net.model(net.add("Gemm", y, net.weight(128, 10), net.weight(10)), ["N", 64], ["N", 10]), (64,)


NETWORKS = {"DenseNet-like": densenet, "TCN": tcn, "ERFNet-like": erfnet, "encoder": encoder, "MLP": mlp}
