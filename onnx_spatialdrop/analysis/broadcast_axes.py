"""Decide along which axes of x a mask shares its entries, and what such a mask is called. Reads the graph only."""

from __future__ import annotations

import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import DimOf, Dims, ShapeOf
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import Layout

__all__ = ["kind_of_axes", "shared_axes"]


def kind_of_axes(axes: tuple[int, ...], rank: int) -> str:
    """Return the usual name of a mask that is shared along ``axes`` of ``rank``."""
    if not axes:
        return "elementwise"
    if axes == tuple(range(1, rank)) or len(axes) == rank:
        return "drop_path"
    return "variational" if axes == (0,) and rank == 3 else "spatial"


def shared_axes(
    x: ir.Value, y: ir.Value, layout: Layout, shapes: Shapes
) -> tuple[tuple[int, ...] | None, int | None, str]:
    """Return the axes of ``x`` that a mask is shared along, the rank of ``x``, and why they could not be proven.

    Args:
        x: what the mask is applied to.
        y: the product.
        layout: the mask's entries and shape.
        shapes: what is known of shapes.
    """
    entries, dims = layout.entries, layout.dims
    shape = shapes.known(x)
    if isinstance(entries, ShapeOf) or isinstance(dims, ShapeOf):
        return _of_unknown_shape(x, entries, shapes)
    traced = shapes.of(x)
    rank = len(shape) if shape is not None else _rank_from(entries, x)
    if rank is None and isinstance(traced, tuple):
        rank = len(traced)
    if rank is None:
        return None, None, "the rank of x is not known"
    if len(dims) > rank:
        if any(shapes.number(dim) != 1 for dim in dims[: len(dims) - rank]):
            return None, rank, f"the mask has {len(dims)} dimensions and x has {rank}: the mask repeats x"
        return None, rank, f"the mask has {len(dims)} dimensions and x has {rank}"
    padded = (1,) * (rank - len(entries)) + entries
    sizes: list[int | None] = [None] * rank
    if isinstance(traced, tuple) and len(traced) == rank:
        sizes = [shapes.number(dim) for dim in traced]
    if shape is not None:
        sizes = [size if isinstance(size, int) else other for size, other in zip(shape, sizes, strict=True)]
    for axis, dim in enumerate((1,) * (rank - len(dims)) + dims):
        if (
            sizes[axis] == 1
            and dim != 1
            and not (isinstance(dim, DimOf) and dim.value is x)
            and shapes.number(dim) != 1
        ):
            return None, rank, f"along axis {axis} the mask repeats x, which has size 1 there"
    for axis, dim in enumerate(padded):
        size, number = sizes[axis], shapes.number(dim)
        if number is None and not shapes.same(dim, x, axis):
            return None, rank, f"along axis {axis} the mask's size is not known to be that of x"
        if number not in (None, 1) and size not in (None, number):
            return None, rank, f"along axis {axis} the mask has size {number}, and x is said to have size {size}"
    y_shape = shapes.known(y)
    if shape is not None and y_shape is not None and len(y_shape) != len(shape):
        return None, rank, "the product has another rank than x"
    for axis, dim in enumerate(padded):
        fixed = shapes.number(dim)
        if shape is None or fixed in (None, 1) or sizes[axis] is not None:
            continue
        if y_shape is None or y_shape[axis] != shape[axis] or shape[axis] == ir.SymbolicDim(None):
            return None, rank, f"along axis {axis} the mask has size {fixed}, and that of x is open: it may repeat x"
    return _shared(x, padded, sizes, shapes), rank, ""


def _of_unknown_shape(
    x: ir.Value, entries: Dims | ShapeOf, shapes: Shapes
) -> tuple[tuple[int, ...] | None, int | None, str]:
    shape = shapes.known(x)
    if isinstance(entries, ShapeOf) and entries.value is x:
        return (), len(shape) if shape is not None else None, ""
    return None, None, "the shape of the mask is not known"


def _rank_from(entries: Dims, x: ir.Value) -> int | None:
    """Return the rank of the mask where the mask itself reads dimension a of x at axis a, so both ranks agree."""
    aligned = any(isinstance(dim, DimOf) and dim.value is x and dim.axis == axis for axis, dim in enumerate(entries))
    return len(entries) if aligned else None


def _shared(x: ir.Value, entries: Dims, sizes: list[int | None], shapes: Shapes) -> tuple[int, ...]:
    """Return the axes along which one entry is shared.

    Where both the mask and x have size 1, sharing and not sharing draw the same. Such an axis is counted in where the
    file spells out that 1 and the other axes show which of them hold channels, so that a layer on 1 x W maps reads as
    the layer that it is.
    """
    last = len(entries) - 1
    written: set[int] = set()
    possible: set[int] = set()
    for axis, dim in enumerate(entries):
        if not (isinstance(dim, DimOf) and dim.value is x) and shapes.number(dim) == 1:
            (possible if sizes[axis] == 1 else written).add(axis)
    full = set(range(1, len(entries))) - written - possible
    spelled = {axis for axis in possible if entries[axis] == 1}
    if last >= 2 and 1 in full:
        written |= spelled & set(range(2, last + 1))
    elif last >= 2 and last in full:
        written |= spelled & set(range(1, last))
    return tuple(sorted(written))
