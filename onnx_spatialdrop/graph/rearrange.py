"""Nodes that compute the same whatever the order of axes, once their attributes and constants are rearranged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.axes import axes_of, named_ints
from onnx_spatialdrop.graph.constants import array_of
from onnx_spatialdrop.graph.ops import Fact

__all__ = ["CARRIED", "Order", "can_rearrange", "is_carried", "is_sink", "rearrange", "rearranged_shape", "undo"]

#: Their attribute axis names one.
_ALONG_ONE: Final = frozenset({"Concat", "Softmax", "LogSoftmax", "Split"})
#: All that is_carried may hold for.
CARRIED: Final = (
    ops.names_of(Fact.ENTRY) | ops.names_of(Fact.ENTRIES) | ops.names_of(Fact.REDUCES) | _ALONG_ONE | {"Pad", "Slice"}
)
#: Larger constants are weights, and nobody's to rearrange.
_LARGEST: Final = 1 << 16

#: For each axis of a transposition's result, the axis of its input.
Order = tuple[int, ...]


def is_carried(node: ir.Node, opset: int) -> bool:
    """Return whether a node can work on rearranged inputs, and then gives its results rearranged the same way."""
    if node.domain != "" or not node.inputs or node.inputs[0] is None:
        return False
    if ops.has(node, Fact.ENTRY):
        return all(value is None or array_of(value) is not None for value in node.inputs[1:])
    if ops.has(node, Fact.ENTRIES):
        return all(value is not None for value in node.inputs)
    if node.op_type in _ALONG_ONE:
        return node.op_type in ("Concat", "Split") or opset >= 13
    if ops.has(node, Fact.REDUCES):
        return node.attributes.get_int("keepdims", 1) == 1 and bool(axes_of(node))
    if node.op_type == "Pad":
        return len(node.inputs) < 4 and named_ints(node, "pads", 1) is not None  # the fourth names axes
    return node.op_type == "Slice" and ("axes" in node.attributes or bool(named_ints(node, "axes", 3)))


def is_sink(node: ir.Node, order: Order) -> bool:
    """Return whether a node, reading its input as it stood before a transposition by ``order``, gives the same."""
    axes = axes_of(node) if ops.has(node, Fact.REDUCES) and node.domain == "" else None
    if not axes or node.attributes.get_int("keepdims", 1) != 0:
        return False
    gone = {axis % len(order) for axis in axes}
    rest = [order[axis] for axis in range(len(order)) if axis not in gone]
    return rest == sorted(rest)


def can_rearrange(node: ir.Node, order: Order) -> bool:
    """Return whether the constants of a node, for which is_carried holds, can be had in another order."""
    if ops.has(node, Fact.ENTRIES):
        arrays = [array_of(value) for value in node.inputs]
        return all(array is None or (array.ndim <= len(order) and array.size <= _LARGEST) for array in arrays)
    pads = named_ints(node, "pads", 1) if node.op_type == "Pad" else None
    return pads is None or len(pads) == 2 * len(order)


def rearrange(graph: ir.Graph, node: ir.Node, order: Order) -> list[ir.Value | None]:
    """Let a node work on inputs as they stood before a transposition by ``order``; return what it read before."""
    rank = len(order)
    if node.op_type in _ALONG_ONE:
        axis = node.attributes.get_int("axis", -1 if "oftmax" in node.op_type else 0)
        node.attributes["axis"] = ir.AttrInt64("axis", order[axis % rank])
        return []
    if ops.has(node, Fact.REDUCES) or node.op_type == "Slice":
        position = 3 if node.op_type == "Slice" else 1
        moved = [order[axis % rank] for axis in named_ints(node, "axes", position) or ()]
        return _set(graph, node, "axes", position, sorted(moved) if position == 1 else moved)
    if node.op_type == "Pad":
        pads, undone = named_ints(node, "pads", 1) or [], undo(order)
        return _set(graph, node, "pads", 1, [pads[axis + end] for end in (0, rank) for axis in undone])
    old: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs if ops.has(node, Fact.ENTRIES) else ()):
        array = array_of(value)
        if value is not None and array is not None and array.size > 1:
            full = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(undo(order))
            node.replace_input_with(index, _constant(graph, full, f"{value.name}/rearranged"))
            old.append(value)
    return old


def undo(order: Order) -> Order:
    """Return the order of the transposition that undoes one by ``order``."""
    return tuple(order.index(axis) for axis in range(len(order)))


def rearranged_shape(shape: ir.Shape | None, order: Order) -> ir.Shape | None:
    """Return the shape of a transposition by ``order``."""
    return None if shape is None or len(shape) != len(order) else ir.Shape([shape[axis] for axis in order])


def _set(graph: ir.Graph, node: ir.Node, name: str, position: int, numbers: Sequence[int]) -> list[ir.Value | None]:
    if name in node.attributes:
        node.attributes[name] = ir.AttrInt64s(name, numbers)
        return []
    old, base = node.inputs[position], node.outputs[0].name
    array = array_of(old)
    dtype = np.int64 if array is None else array.dtype
    node.replace_input_with(position, _constant(graph, np.array(numbers, dtype), f"{base}/{name}/rearranged"))
    return [old]


def _constant(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    unique, count = name, 0
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(np.ascontiguousarray(array), name=unique)
    value = ir.Value(name=unique, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value
