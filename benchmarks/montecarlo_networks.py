"""Networks with dropout late, in the middle, early and everywhere; their weights are random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """Nodes and weights of a network under construction."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, array: np.ndarray) -> str:
        """Add a weight and return its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def drop(self, x: str, ratio: float, axes: Sequence[int]) -> str:
        """Put a SpatialDropout node after ``x``."""
        name = f"dropped_{len(self.nodes)}"
        node = helper.make_node(
            "SpatialDropout", [x, "training_mode", "step"], [name, f"{name}_mask"], name, domain="onnx_spatialdrop",
            ratio=ratio, seed=1000 + len(self.nodes), scale=0.0, rng="philox",
        )  # fmt: skip
        node.attribute.append(helper.make_attribute("axes", list(axes), attr_type=onnx.AttributeProto.INTS))
        self.nodes.append(node)
        return name

    def conv(
        self, x: str, given: int, made: int, size: int = 3, stride: int = 1, relu: bool = True, rank: int = 2
    ) -> str:
        """Put a convolution after ``x``, and a ReLU."""
        scale = np.sqrt(2 / (given * size**rank))
        w = self.weight((self.rng.standard_normal((made, given, *[size] * rank)) * scale).astype(np.float32))
        pads = [size // 2 if rank == 2 else 0] * 2 * rank
        y = self.op("Conv", x, w, self.weight(np.zeros(made, np.float32)), strides=[stride] * rank, pads=pads)
        return self.op("Relu", y) if relu else y

    def dense(self, x: str, given: int, made: int) -> str:
        """Put a matrix product and an addition after ``x``."""
        w = self.weight((self.rng.standard_normal((given, made)) / np.sqrt(given)).astype(np.float32))
        return self.op("Add", self.op("MatMul", x, w), self.weight(np.zeros(made, np.float32)))

    def norm(self, x: str, size: int) -> str:
        """Put a LayerNormalization after ``x``."""
        ones, zeros = (self.weight(np.full(size, value, np.float32)) for value in (1, 0))
        return self.op("LayerNormalization", x, ones, zeros)

    def model(
        self, y: str, shape: Sequence[int], made: Sequence[int], kind: int = TensorProto.FLOAT
    ) -> onnx.ModelProto:
        """Return the model from "x" to ``y``; sizes are those of a sample."""
        inputs = [
            helper.make_tensor_value_info("x", kind, ["N", *shape]),
            helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []),
            helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]),
        ]
        switches = [numpy_helper.from_array(np.array(False), "training_mode")]
        switches.append(numpy_helper.from_array(np.array([-1], np.int64), "step"))
        output = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", *made])
        graph = helper.make_graph(self.nodes, "network", inputs, [output], self.weights + switches)
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("onnx_spatialdrop", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=9)


def late() -> onnx.ModelProto:
    """A residual network of 17 convolutions on 96 by 96 pixels, element-wise dropout before the last layer."""
    n, width = Network(), 32
    x = n.op("MaxPool", n.conv("x", 3, width, 7, 2), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    given = width
    for stage, made in enumerate([width, 2 * width, 4 * width, 8 * width]):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = n.conv(n.conv(x, given, made, 3, stride), made, made, relu=False)
            skip = x if stride == 1 and given == made else n.conv(x, given, made, 1, stride, relu=False)
            x, given = n.op("Relu", n.op("Add", y, skip)), made
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    return n.model(n.dense(n.drop(x, 0.3, []), given, 100), (3, 96, 96), (100,))


def middle() -> onnx.ModelProto:
    """A U-Net of 18 convolutions on 128 by 128 pixels, spatial dropout at its bottleneck."""
    n, width, skips, given, x = Network(), 16, [], 3, "x"
    for level in range(4):
        made = width * 2**level
        x = n.conv(n.conv(x, given, made), made, made)
        skips.append((x, made))
        x, given = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), made
    x, given = n.drop(n.conv(n.conv(x, given, 2 * given), 2 * given, 2 * given), 0.5, [2, 3]), 2 * given
    for skip, made in reversed(skips):
        x = n.op("Resize", x, "", n.weight(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
        x, given = n.op("Concat", x, skip, axis=1), given + made
        x, given = n.conv(n.conv(x, given, made), made, made), made
    return n.model(n.conv(x, given, 8, 1, relu=False), (3, 128, 128), (8, 128, 128))


def early() -> onnx.ModelProto:
    """A text network of three convolutions of 128 words, spatial dropout right after the embedding."""
    n = Network()
    x = n.op("Gather", n.weight(n.rng.standard_normal((5000, 128)).astype(np.float32)), "x", axis=0)
    x = n.op("Transpose", n.drop(x, 0.2, [1]), perm=[0, 2, 1])
    tops = [n.op("Flatten", n.op("GlobalMaxPool", n.conv(x, 128, 100, size, rank=1))) for size in (3, 4, 5)]
    x = n.drop(n.op("Concat", *tops, axis=1), 0.5, [])
    return n.model(n.dense(x, 300, 4), (128,), (4,), TensorProto.INT64)


def everywhere() -> onnx.ModelProto:
    """A transformer encoder of two layers on 64 words, element-wise dropout in nine places."""
    n, length, width, heads = Network(), 64, 128, 4
    x = n.op("Gather", n.weight((n.rng.standard_normal((5000, width)) / 10).astype(np.float32)), "x", axis=0)
    x = n.drop(n.op("Add", x, n.weight((n.rng.standard_normal((1, length, width)) / 10).astype(np.float32))), 0.1, [])
    apart = n.weight(np.array([0, 0, heads, width // heads], np.int64))
    together = n.weight(np.array([0, 0, width], np.int64))
    scale = n.weight(np.array((width // heads) ** -0.5, np.float32))
    for _ in range(2):
        q, k, v = (n.op("Reshape", n.dense(x, width, width), apart) for _ in range(3))
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        q, k, v = (n.op("Transpose", each, perm=order) for each, order in zip((q, k, v), orders, strict=True))
        scores = n.op("Softmax", n.op("Mul", n.op("MatMul", q, k), scale), axis=-1)
        mixed = n.op("Transpose", n.op("MatMul", n.drop(scores, 0.1, []), v), perm=[0, 2, 1, 3])
        out = n.drop(n.dense(n.op("Reshape", mixed, together), width, width), 0.1, [])
        x = n.norm(n.op("Add", x, out), width)
        inner = n.drop(n.op("Relu", n.dense(x, width, 4 * width)), 0.1, [])
        x = n.norm(n.op("Add", x, n.drop(n.dense(inner, 4 * width, width), 0.1, [])), width)
    x = n.op("ReduceMean", x, n.weight(np.array([1], np.int64)), keepdims=0)
    return n.model(n.dense(x, width, 4), (length,), (4,), TensorProto.INT64)


#: Each network and how its input is made for N samples.
NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[np.random.Generator, int], np.ndarray]]] = {
    "late": (late, lambda rng, n: rng.random((n, 3, 96, 96), np.float32)),
    "middle": (middle, lambda rng, n: rng.random((n, 3, 128, 128), np.float32)),
    "early": (early, lambda rng, n: rng.integers(0, 5000, (n, 128))),
    "everywhere": (everywhere, lambda rng, n: rng.integers(0, 5000, (n, 64))),
}
