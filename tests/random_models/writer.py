"""A graph under construction, with and without its dropout. The same seed makes the same graph but for that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: What a named batch dimension is when the model is run.
BATCH = 2


@dataclass(frozen=True)
class Tensor:
    """A value: its name and its shape, where "N" is a batch that the file leaves open."""

    name: str
    dims: tuple[int | str, ...]

    @property
    def rank(self) -> int:
        return len(self.dims)


@dataclass
class Setting:
    """What holds for a whole model.

    Attributes:
        rng: all choices come from here.
        opset: of ONNX's default domain.
        ir_version: of the file.
        dtype: of all data.
        dropout: whether dropout is written; if not, its result is its input.
        wanted: the ratio and axes of every dropout that is written (or would be).
        functions: model-local functions.
    """

    rng: random.Random
    opset: int
    ir_version: int
    dtype: np.dtype[Any]
    dropout: bool
    wanted: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    count: int = 0


class Writer:
    """The nodes and initializers of one graph."""

    def __init__(self, setting: Setting, prefix: str = "", home: Writer | None = None, function: bool = False) -> None:
        self.setting, self.rng, self.opset = setting, setting.rng, setting.opset
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._home, self._function = home, function
        self._count = 0

    def name(self, role: str) -> str:
        """Return a name that is new in this graph; graphs of one prefix use the same ones."""
        self._count += 1
        return f"{self.prefix}{role}_{self._count}"

    def node(
        self, op_type: str, inputs: Sequence[str], outputs: int = 1, domain: str | None = None, **attributes: Any
    ) -> str:
        """Append a node and return its first output."""
        names = [self.name(op_type.lower()) for _ in range(outputs)]
        made = helper.make_node(op_type, list(inputs), names, domain=domain, **attributes)
        if self.rng.random() < 0.7:
            made.name = f"{self.prefix}{op_type}/{self._count}"
        self.nodes.append(made)
        return names[0]

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Append a constant, an initializer or a node, and return its name."""
        tensor = np.asarray(array, self.setting.dtype if dtype is None else dtype)
        name = self.name("constant")
        floats = tensor.dtype.kind == "f" or self.opset >= 9  # before, Constant holds nothing else
        if self._function or (floats and self.rng.random() < 0.4):
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(tensor, "")))
        elif self._home is not None and self.setting.ir_version < 4:  # before, initializers are listed as inputs
            return self._home.constant(tensor, tensor.dtype)
        else:
            self.initializers.append(numpy_helper.from_array(tensor, name))
        return name

    def number(self, value: float) -> str:
        """Append one number, of rank 0 or 1."""
        return self.constant(value if self.rng.random() < 0.7 else [value])

    def axes_node(self, op_type: str, x: str, axes: Sequence[int], since: int = 13, **attributes: Any) -> str:
        """Append a node whose axes are an attribute before the opset ``since``, and an input from it on."""
        if self.opset < since:
            return self.node(op_type, [x], axes=list(axes), **attributes)
        return self.node(op_type, [x, self.constant(list(axes), np.int64)], **attributes)

    def shape_of(self, dims: Sequence[int | str], x: Tensor) -> str:
        """Return the shape ``dims``, of which "N" is read from axis 0 of ``x``, as an integer tensor."""
        if "N" not in dims:
            return self.constant(list(dims), np.int64)
        shape = self.node("Shape", [x.name])
        if self.rng.random() < 0.5:
            batch = self.node("Gather", [shape, self.constant([0], np.int64)], axis=0)
        elif self.opset < 10:
            batch = self.node("Slice", [shape], axes=[0], starts=[0], ends=[1])
        else:
            batch = self.node("Slice", [shape, *(self.constant([n], np.int64) for n in (0, 1, 0))])
        parts = [batch if dim == "N" else self.constant([dim], np.int64) for dim in dims]
        return self.node("Concat", parts, axis=0)

    def graph(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.GraphProto:
        """Return the graph."""
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs), self.initializers)
