"""A random graph under construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

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
