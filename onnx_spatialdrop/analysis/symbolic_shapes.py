"""Shapes as a graph computes them: numbers, or "dimension a of value v". Reads the graph only.

A dimension that is read from a value is kept as that reading even where its number is known: whether a mask's
1 was written down or came out of X's own shape tells a shared axis from one that happens to be 1.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import END, Dim, DimOf, Dims, ShapeOf, times
from onnx_spatialdrop.analysis.dim_products import same_size
from onnx_spatialdrop.analysis.shape_rules import computed_shape, required
from onnx_spatialdrop.analysis.shape_values import RULES, objects
from onnx_spatialdrop.analysis.slices import cuts
from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.malformed import MalformedNodeError, reading
from onnx_spatialdrop.graph.ops import Fact

__all__ = ["Shapes"]

_DEPTH: Final = 64


class Shapes:
    """Memory of what shapes are made of.

    Args:
        constants: the constants of the same model.
        inferred: the shapes of the same model's values; without it, those that the file gives them.
    """

    def __init__(self, constants: Constants, inferred: Callable[[ir.Value], ir.Shape | None] | None = None) -> None:
        self._constants = constants
        self._inferred = inferred or (lambda value: value.shape)
        self._contents: dict[ir.Value, np.ndarray | None] = {}
        self._traced: dict[ir.Value, Dims | ShapeOf] = {}

    def known(self, value: ir.Value) -> ir.Shape | None:
        """Return the shape of ``value``, as far as it is known."""
        return self._inferred(value)

    def same(self, dim: Dim, value: ir.Value, axis: int) -> bool:
        """Return whether ``dim`` is dimension ``axis`` of ``value``: read from it, of its name, or of its size."""
        mine, theirs = self.size(dim), self.size(DimOf(value, axis))
        if mine is not None and mine == theirs:
            return True
        if isinstance(dim, DimOf) and self.origin(dim) == self.origin(DimOf(value, axis)):
            return True
        traced = self.of(value)
        spelled = traced[axis] if isinstance(traced, tuple) and axis < len(traced) else DimOf(value, axis)
        return same_size(self, dim, spelled)

    def size(self, dim: Dim) -> int | str | None:
        """Return the number or the name of ``dim``, where it has one."""
        if not isinstance(dim, DimOf):
            return dim if isinstance(dim, int) else None
        shape = self.known(dim.value)
        size = shape[dim.axis] if shape is not None and dim.axis < len(shape) else None
        return size if size is None or isinstance(size, int) else size.value

    def origin(self, dim: DimOf) -> DimOf:
        """Return the dimension furthest back that ``dim`` was made of, through transpositions and element-wise ops."""
        value, axis = dim.value, dim.axis
        for _ in range(_DEPTH):
            node = value.producer()
            if node is None or node.domain or not node.inputs or value.index():
                break
            perm = node.attributes.get_ints("perm", ()) if node.op_type == "Transpose" else ()
            operands = list(node.inputs[:1])
            if ops.has(node, Fact.ENTRIES):
                operands = [operand for operand in node.inputs if self._constants.number(operand) is None]
            keeps = perm or ops.has(node, Fact.SHAPE) or ops.has(node, Fact.ENTRIES)
            if keeps and len(operands) == 1 and operands[0] is not None:
                value, axis = operands[0], perm[axis] if perm else axis
                continue
            traced = self.of(value)
            spelled = traced[axis] if isinstance(traced, tuple) and axis < len(traced) else None
            if not isinstance(spelled, DimOf) or spelled == DimOf(value, axis):
                break
            value, axis = spelled.value, spelled.axis
        return DimOf(value, axis)

    def number(self, dim: Dim) -> int | None:
        """Return ``dim`` as a number, where it is known to be one."""
        size = self.size(dim)
        return size if isinstance(size, int) else None

    def of(self, value: ir.Value) -> Dims | ShapeOf:
        """Return the shape of ``value``, in terms of the values that its computation read."""
        chain: list[ir.Value] = []
        while value not in self._traced and len(chain) < _DEPTH:
            source = self._same_shape_as(value)
            if source is None:
                self._traced[value] = self._safely_own(value)
                break
            chain.append(value)
            value = source
        found = self._traced[value] if value in self._traced else self._safely_own(value)
        for passed in chain:
            self._traced[passed] = found
        return found

    def _same_shape_as(self, value: ir.Value) -> ir.Value | None:
        node = value.producer()
        if node is None or node.domain or not node.inputs or not ops.has(node, Fact.SHAPE):
            return None
        source = node.inputs[0]
        # A value with a shape of its own keeps it: the trail matters for templates made of shapes, not for data.
        if source is None or (value.shape is not None and not self._is_template(source)):
            return None
        return source

    def _is_template(self, value: ir.Value) -> bool:
        node = value.producer()
        return node is not None and node.op_type in ("ConstantOfShape", "Expand", "Cast", "CastLike", "Identity")

    def _safely_own(self, value: ir.Value) -> Dims | ShapeOf:
        node = value.producer()
        try:
            with reading(node) if node is not None else nullcontext():
                return self._own(value)
        except MalformedNodeError:
            return ShapeOf(value)

    def _own(self, value: ir.Value) -> Dims | ShapeOf:
        node = value.producer()
        found = computed_shape(node, self) if node is not None and not node.domain else None
        if found is None:
            found = self._constants.shape(value)
        if found is not None:
            return found
        shape = self.known(value)
        if shape is None or (len(shape) == 1 and isinstance(shape[0], int)):  # it may be a list of sizes
            contents = self.contents(value)
            if contents is not None:
                return tuple(contents.shape)
        if shape is None:
            return ShapeOf(value)
        return tuple(DimOf(value, axis) for axis in range(len(shape)))

    def like(self, shape: ir.Value | None) -> Dims | ShapeOf | None:
        """Return the shape that the contents of the integer tensor ``shape`` spell; None where they are unknown."""
        contents = self.contents(shape)
        if contents is not None:
            return tuple(contents.reshape(-1).tolist())
        for _ in range(_DEPTH):
            node = shape.producer() if shape is not None else None
            if node is None or node.domain or not node.inputs:
                return None
            if node.op_type == "Shape" and not node.attributes.get_int("start", 0) and "end" not in node.attributes:
                return ShapeOf(required(node.inputs[0]))
            if node.op_type not in ("Cast", "Identity"):
                return None
            shape = node.inputs[0]
        return None

    def broadcast(self, left: Dims, right: Dims) -> Dims:
        """Return the shape of an element-wise result of operands of two shapes; a number says more than a name."""
        rank = max(len(left), len(right))
        padded = [(1,) * (rank - len(dims)) + dims for dims in (left, right)]
        pairs = ((a, b, self.number(a), self.number(b)) for a, b in zip(*padded, strict=True))
        return tuple(b if n == 1 or (n is None and m not in (None, 1)) else a for a, b, n, m in pairs)

    def contents(self, value: ir.Value | None, depth: int = _DEPTH) -> np.ndarray | None:
        """Return the elements of an integer tensor as an object array of numbers and Refs; None where unknown."""
        if value is None or depth == 0:
            return None
        if value not in self._contents:
            array = self._constants.array(value)
            if array is None:
                self._contents[value] = self._computed(value, depth)
            else:
                small = array.size <= 1024 and array.dtype.kind in "iub"
                self._contents[value] = array.astype(object) if small else None
        return self._contents[value]

    def _computed(self, value: ir.Value, depth: int) -> np.ndarray | None:
        node = value.producer()
        if node is None or node.domain:
            return None
        if node.op_type in ("Shape", "Size") and node.inputs:
            found = self._shape_node(node)
            if node.op_type == "Shape":
                return found
            if found is not None:
                return objects([_all_of(found.tolist())]).reshape(())
        rule = RULES.get(node.op_type)
        if rule is None:
            return None
        if node.op_type in ("Slice", "Gather") and node.inputs:
            picked = self._picked(node)
            if picked is not None:
                return picked
        inputs = list(node.inputs)
        if node.op_type == "ConcatFromSequence":
            inputs = _members(inputs[0])
        operands = [self.contents(operand, depth - 1) if operand is not None else None for operand in inputs]
        try:
            with reading(node):
                result: np.ndarray | list[np.ndarray] = rule(node, operands)
        except MalformedNodeError:
            return None
        return result[value.index() or 0] if isinstance(result, list) else result

    def _picked(self, node: ir.Node) -> np.ndarray | None:
        """Return the entries, counted from the front, that a node takes of the shape of a value of unknown rank."""
        whole = self.like(node.inputs[0])
        if not isinstance(whole, ShapeOf):
            return None
        if node.op_type == "Gather":
            indices = self.contents(node.inputs[1])
            if indices is None or not all(isinstance(index, int) and index >= 0 for index in indices.reshape(-1)):
                return None
            picked = [DimOf(whole.value, index) for index in indices.reshape(-1)]
            return objects(picked).reshape(indices.shape)
        found = cuts(node, self)
        if found is None or len(found) != 1 or found[0][1] < 0 or not 0 <= found[0][2] < END:
            return None
        return objects([DimOf(whole.value, axis) for axis in range(found[0][1], found[0][2])])

    def _shape_node(self, node: ir.Node) -> np.ndarray | None:
        source = required(node.inputs[0])
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
        traced = self.of(source)
        if isinstance(traced, tuple):
            return objects(list(traced[start:end]))
        if start >= 0 and end is not None and end >= 0:
            return objects([DimOf(source, axis) for axis in range(start, end)])
        return None


def _all_of(dims: list[Dim]) -> Dim:
    product: Dim = 1
    for dim in dims:
        product = times(product, dim)
    return product


def _members(sequence: ir.Value | None) -> list[ir.Value | None]:
    """Return the tensors of a sequence that one node constructs; one unknown where it is made in another way."""
    node = None if sequence is None else sequence.producer()
    return list(node.inputs) if node is not None and node.op_type == "SequenceConstruct" else [None]
