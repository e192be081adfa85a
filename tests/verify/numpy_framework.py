"""A framework in NumPy: two dropout layers and some arithmetic, and the same network as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx.parser

from onnx_spatialdrop import reference
from onnx_spatialdrop.verify import FrameworkStep, Layer


@dataclass(frozen=True)
class Drop:
    """A dropout layer as somebody would write it down."""

    axes: tuple[int, ...] = (2, 3)
    rate: float = 0.3
    seed: int = 5
    scale: float = 1 / 0.7


DROPS = {"block.drop": Drop(), "head.drop": Drop(rate=0.5, seed=6, scale=2.0)}
X = np.random.default_rng(0).normal(size=(3, 8, 4, 5)).astype(np.float32)


@dataclass
class NumpyNetwork:
    """y = -2 * drop(|drop(x)| + 1); ``changed`` plants a fault in one layer."""

    drops: Mapping[str, Drop] = field(default_factory=lambda: DROPS)
    offset: int = 0
    framework: str = "NumPy"
    begun: list[Sequence[Layer]] = field(default_factory=list)

    def changed(self, layer: str, **fault: object) -> NumpyNetwork:
        return NumpyNetwork({**self.drops, layer: replace(self.drops[layer], **fault)})

    def begin(self, layers: Sequence[Layer]) -> None:
        self.begun.append(layers)

    def run(self, inputs: Mapping[str, np.ndarray], step: int) -> FrameworkStep:
        masks: dict[str, np.ndarray] = {}
        values = inputs["x"]
        for name, drop in self.drops.items():
            mask = reference.dropout_mask(values.shape, drop.axes, drop.rate, drop.seed, step + self.offset)
            masks[name] = mask
            values = np.where(mask, values * np.float32(drop.scale), np.float32(0))
            values = np.abs(values) + 1 if name == "block.drop" else values * np.float32(-2)
        return FrameworkStep((values,), masks, {name: drop.scale for name, drop in self.drops.items()})


def model() -> onnx.ModelProto:
    """Return the network; its nodes are named after the layers."""
    first = "axes = [2, 3], ratio = 0.3, seed = 5, scale = 1.4285714626312256"
    second = "axes = [2, 3], ratio = 0.5, seed = 6, scale = 2.0"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]>
        g (float[N, 8, H, W] x, bool training_mode, int64[steps] step) => (float[N, 8, H, W] y)
        <bool training_mode = {{0}}, int64[1] step = {{-1}}> {{
          one = Constant <value = float {{1.0}}> ()
          two = Constant <value = float {{-2.0}}> ()
          a, m = onnx_spatialdrop.SpatialDropout <{first}> (x, training_mode, step)
          b = Abs (a)
          c = Add (b, one)
          d, n = onnx_spatialdrop.SpatialDropout <{second}> (c, training_mode, step)
          y = Mul (d, two)
        }}"""
    )
    nodes = [node for node in proto.graph.node if node.op_type == "SpatialDropout"]
    for node, name in zip(nodes, DROPS, strict=True):
        node.name = name
    return proto
