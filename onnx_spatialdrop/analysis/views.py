"""What reshaping and broadcasting ops do to the place of a draw's entries. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import END, Dim, DimOf, Dims, ShapeOf
from onnx_spatialdrop.analysis.dim_products import divided
from onnx_spatialdrop.analysis.slices import cuts
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import Layout, NotRepresentableError
from onnx_spatialdrop.graph.axes import named_ints
from onnx_spatialdrop.graph.ops import Fact, names_of
from onnx_spatialdrop.operator.node import describe

__all__ = ["OPS", "view"]

#: The ops that rearrange, repeat or select entries of their first input.
OPS: Final = names_of(Fact.VIEW) - {"Identity", "Split"}


def view(node: ir.Node, layout: Layout, shapes: Shapes) -> Layout:
    """Return the layout of the result of ``node``, one of OPS, on a tensor of ``layout``.

    Raises:
        NotRepresentableError: where the entries end up could not be derived.
    """
    entries, dims = layout.entries, layout.dims
    if isinstance(entries, ShapeOf) or isinstance(dims, ShapeOf):
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) rearranges a mask of unknown shape")
    rank, op_type = len(dims), node.op_type
    if op_type in ("Squeeze", "Unsqueeze"):
        return _squeezed(node, layout, entries, dims, shapes)
    if op_type == "Transpose":
        order = tuple(node.attributes.get_ints("perm", ()) or range(rank - 1, -1, -1))
        moved = tuple(entries[axis] for axis in order), tuple(dims[axis] for axis in order)
        full = [axis for axis in order if entries[axis] != 1]
        view_ = layout.view if full == sorted(full) else (*layout.view, ("Transpose", order))
        return Layout(*moved, view_)
    if op_type == "Gather":
        return _gathered(node, layout, entries, dims, shapes)
    if op_type == "Slice":
        return _sliced(node, layout, entries, dims, shapes)
    target = _target(node, dims, shapes)
    if op_type == "Expand":
        padded = (1,) * (max(len(target), rank) - rank) + entries
        return replace(layout, entries=padded, dims=shapes.broadcast(dims, target))
    if op_type == "Tile":
        if any(
            shapes.number(entry) != 1 and shapes.number(count) != 1
            for entry, count in zip(entries, target, strict=True)
        ):
            raise NotRepresentableError(f"{describe(node)} (Tile) repeats the entries of the mask")
        tiled = zip(entries, dims, target, strict=True)
        return replace(layout, dims=tuple(dim if shapes.number(entry) != 1 else count for entry, dim, count in tiled))
    return _reshaped(node, layout, entries, dims, target, shapes)


def _sliced(node: ir.Node, layout: Layout, entries: Dims, dims: Dims, shapes: Shapes) -> Layout:
    """Some of the entries are as independent as all of them; which ones, the view remembers."""
    found = cuts(node, shapes)
    if found is None:
        raise NotRepresentableError(f"{describe(node)} (Slice) cuts the mask at places that are not constant")
    new_entries, new_dims, view_ = list(entries), list(dims), layout.view
    for axis, start, end in found:
        size = shapes.number(dims[axis])
        if start == 0 and (end >= END or (size is not None and end >= size)):
            continue
        one = (start, min(end, END)) in ((0, 1), (-1, END))
        rest = _rest(node, axis % len(dims), start, shapes) if end >= END else None
        new_dims[axis] = 1 if one else rest if rest is not None else DimOf(node.outputs[0], axis % len(dims))
        new_entries[axis] = 1 if one or entries[axis] == 1 else new_dims[axis]
        view_ = (*view_, ("Slice", axis % len(dims), start, end))
    return Layout(tuple(new_entries), tuple(new_dims), view_)


def _rest(node: ir.Node, axis: int, start: int, shapes: Shapes) -> Dim | None:
    """Return the size that is left where a slice takes away what was joined to the front of a Dropout's input."""
    source = node.inputs[0]
    dropped = None if source is None else source.producer()
    if dropped is None or dropped.op_type != "Dropout" or dropped.inputs[0] is None:
        return None
    joined = dropped.inputs[0].producer()
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2 or None in joined.inputs:
        return None
    front, rest = (shapes.of(value) for value in joined.inputs if value is not None)
    if isinstance(front, ShapeOf) or isinstance(rest, ShapeOf) or not axis < len(front) == len(rest):
        return None
    along = joined.attributes.get_int("axis", 0) % len(rest)
    return rest[axis] if along == axis and shapes.number(front[axis]) == start else None


def _gathered(node: ir.Node, layout: Layout, entries: Dims, dims: Dims, shapes: Shapes) -> Layout:
    """One index of an axis is a slice of it, with the axis left out where the index is a scalar."""
    index, axis = shapes.contents(node.inputs[1]), node.attributes.get_int("axis", 0) % len(dims)
    if index is None or index.size != 1 or index.ndim > 1:
        raise NotRepresentableError(f"{describe(node)} (Gather) picks entries of the mask")
    one: Dims = (1,) if index.ndim else ()
    view_ = layout.view if entries[axis] == 1 else (*layout.view, ("Gather", axis, index.reshape(-1)[0]))
    rest, whole = ((*items[:axis], *one, *items[axis + 1 :]) for items in (entries, dims))
    return Layout(rest, whole, view_)


def _squeezed(node: ir.Node, layout: Layout, entries: Dims, dims: Dims, shapes: Shapes) -> Layout:
    axes = _axes(node, shapes)
    if node.op_type == "Squeeze":
        if axes is None:
            axes = [axis for axis, dim in enumerate(dims) if shapes.number(dim) == 1]
        gone = {axis % len(dims) for axis in axes}
        kept = [axis for axis in range(len(dims)) if axis not in gone]
        return replace(layout, entries=tuple(entries[a] for a in kept), dims=tuple(dims[a] for a in kept))
    if axes is None:
        raise NotRepresentableError(f"{describe(node)} has axes that are not constant")
    new = {axis % (len(dims) + len(axes)) for axis in axes}
    both = []
    for items in (entries, dims):
        rest = iter(items)
        both.append(tuple(1 if axis in new else next(rest) for axis in range(len(dims) + len(axes))))
    return replace(layout, entries=both[0], dims=both[1])


def _axes(node: ir.Node, shapes: Shapes) -> list[int] | None:
    axes = named_ints(node, "axes", 1, shapes.contents)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        raise NotRepresentableError(f"{describe(node)} has axes that are not constant")
    return axes


def _target(node: ir.Node, dims: Dims, shapes: Shapes) -> Dims:
    if node.op_type == "Flatten":
        if node.attributes.get_int("axis", 1) != 1 or not dims:
            raise NotRepresentableError(f"{describe(node)} (Flatten) rearranges the mask")
        rest = [dim for dim in dims[1:] if isinstance(dim, int)]
        return (dims[0], int(np.prod(rest)) if len(rest) == len(dims) - 1 else -1)
    if node.op_type == "Reshape" and "shape" in node.attributes:
        return tuple(node.attributes.get_ints("shape"))
    target = shapes.like(node.inputs[1])
    if not isinstance(target, tuple):
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) gives the mask a shape that is not known")
    return target


def _reshaped(node: ir.Node, layout: Layout, entries: Dims, dims: Dims, target: Dims, shapes: Shapes) -> Layout:
    zero_copies = not node.attributes.get_int("allowzero", 0)
    copied = tuple(
        dims[axis] if dim == 0 and zero_copies and axis < len(dims) else dim for axis, dim in enumerate(target)
    )
    old = [dim for dim in dims if dim != 1]
    new = [dim for dim in copied if dim != 1]
    if len(new) == len(old) and all(b in (a, -1) or _may_equal(a, b) for a, b in zip(old, new, strict=True)):
        # Only axes of size 1 come and go: every other axis keeps its entries.
        source = iter(axis for axis, dim in enumerate(dims) if dim != 1)
        origin = [None if dim == 1 else next(source) for dim in copied]
        return replace(
            layout,
            entries=tuple(1 if axis is None else entries[axis] for axis in origin),
            dims=tuple(1 if axis is None else dims[axis] for axis in origin),
        )
    if entries != dims:
        raise NotRepresentableError(f"{describe(node)} (Reshape) rearranges a mask with repeated entries")
    output = node.outputs[0]
    rest = divided(shapes, dims, tuple(dim for dim in copied if dim != -1)) if -1 in copied else None
    resolved: Dims = tuple(
        (DimOf(output, axis) if rest is None else rest) if dim == -1 else dim for axis, dim in enumerate(copied)
    )
    return Layout(resolved, resolved, (*layout.view, ("Reshape", copied)))


def _may_equal(a: Dim, b: Dim) -> bool:
    return not (isinstance(a, int) and isinstance(b, int)) or a == b
