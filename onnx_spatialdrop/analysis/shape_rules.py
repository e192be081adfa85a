"""The shape of a node's result, where the node itself says more than a shape in the file. Reads the graph only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import onnx_ir as ir

from onnx_spatialdrop.analysis import slices
from onnx_spatialdrop.analysis.dim_algebra import Dim, DimOf, Dims, ShapeOf
from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.axes import named_ints
from onnx_spatialdrop.graph.loop_states import is_made_up
from onnx_spatialdrop.graph.ops import Fact

__all__ = ["computed_shape", "required"]


class Known(slices.Known, Protocol):
    """What has to be known of values."""

    def known(self, value: ir.Value) -> ir.Shape | None:
        """Return the shape that the file or shape inference gives a value."""

    def like(self, shape: ir.Value | None) -> Dims | ShapeOf | None:
        """Return the shape that an integer tensor spells."""

    def origin(self, dim: DimOf) -> DimOf:
        """Return the dimension furthest back that ``dim`` was made of."""

    def size(self, dim: Dim) -> int | str | None:
        """Return the number or the name of a dimension, where it has one."""

    def number(self, dim: Dim) -> int | None:
        """Return a dimension as a number, where it is known to be one."""

    def broadcast(self, left: Dims, right: Dims) -> Dims:
        """Return the shape of an element-wise result of operands of two shapes."""


def computed_shape(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    """Return the shape of the one result of ``node``; None where the node says nothing of it.

    Raises:
        ValueError: an input that the op requires is missing.
    """
    rule = _RULES.get(node.op_type)
    if rule is None and ops.has(node, Fact.ENTRIES):
        rule = _compared if ops.has(node, Fact.BOOLEAN) else _calculated
    if rule is None and ops.has(node, Fact.REDUCES):
        rule = _reduced
    return None if rule is None else rule(node, known)


def required(value: ir.Value | None) -> ir.Value:
    """Return ``value``.

    Raises:
        ValueError: it is missing.
    """
    if value is None:
        raise ValueError("a required input is missing")
    return value


def _filled(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    return known.like(node.inputs[0])


def _expanded(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    shape, start = known.like(node.inputs[1]), known.of(required(node.inputs[0]))
    if isinstance(shape, tuple) and isinstance(start, tuple):
        return known.broadcast(start, shape)
    return shape if start == () else None


def _compared(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    result: Dims = ()
    for operand in node.inputs:
        dims = known.of(required(operand))
        if not isinstance(dims, tuple):
            return None
        result = known.broadcast(result, dims)
    return result


def _calculated(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    value, dims = node.outputs[0], _compared(node, known)
    shape = known.known(value)
    if shape is None or not isinstance(dims, tuple) or len(dims) != len(shape):
        return dims if shape is None else None
    sizes = (known.size(DimOf(value, axis)) for axis in range(len(shape)))
    return tuple(
        dim if size is None or is_made_up(size) else DimOf(value, axis)
        for axis, (dim, size) in enumerate(zip(dims, sizes, strict=True))
    )


def _joined(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    parts = [known.of(required(part)) for part in node.inputs]
    first = parts[0]
    if not isinstance(first, tuple) or len(first) < 2:  # with one axis it is a list, not a tensor
        return None
    along = node.attributes.get_int("axis", 0) % len(first)
    return tuple(DimOf(node.outputs[0], axis) if axis == along else dim for axis, dim in enumerate(first))


def _reduced(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    source = known.of(required(node.inputs[0]))
    if isinstance(source, ShapeOf):
        return None
    axes = named_ints(node, "axes", 1, known.contents)
    open_ = axes is None and len(node.inputs) > 1 and node.inputs[1] is not None
    if open_ or node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        return None
    gone = {axis % len(source) for axis in axes or ()} or set(range(len(source)))
    if not node.attributes.get_int("keepdims", 1):
        return tuple(dim for axis, dim in enumerate(source) if axis not in gone)
    return tuple(1 if axis in gone else dim for axis, dim in enumerate(source))


def _branched(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    """Return what both branches of an If agree on; sizes that they do not are its own."""
    graphs = [
        attribute.as_graph() for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH
    ]
    if len(node.outputs) != 1 or len(graphs) != 2:
        return None
    one, two = (known.of(graph.outputs[0]) for graph in graphs)
    if isinstance(one, ShapeOf) or isinstance(two, ShapeOf) or len(one) != len(two):
        return None
    pairs = [(_furthest(a, known), _furthest(b, known)) for a, b in zip(one, two, strict=True)]
    value = node.outputs[0]
    return tuple(a if a is not None and a == b else DimOf(value, axis) for axis, (a, b) in enumerate(pairs))


def _furthest(dim: Dim, known: Known) -> int | None:
    if not isinstance(dim, DimOf):
        return known.number(dim)
    origin = known.origin(dim)
    dims = known.of(origin.value)
    return known.number(dims[origin.axis] if isinstance(dims, tuple) and origin.axis < len(dims) else origin)


def _reshaped(node: ir.Node, known: Known) -> Dims | ShapeOf | None:
    value = node.outputs[0]
    if known.known(value) is not None or len(node.inputs) < 2:
        return None
    contents, target = known.contents(value), known.like(node.inputs[1])
    if contents is not None:
        return tuple(contents.shape)
    if not isinstance(target, tuple):
        return None
    return tuple(DimOf(value, axis) if dim in (0, -1) else dim for axis, dim in enumerate(target))


Rule = Callable[[ir.Node, Known], Dims | ShapeOf | None]
_RULES: Final[dict[str, Rule]] = {
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Slice": slices.sliced,
    "Concat": _joined,
    "Reshape": _reshaped,
    "If": _branched,
}
