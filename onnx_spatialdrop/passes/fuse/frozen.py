"""Find masks that an exporter drew once and froze into a constant. Looks at small constants; changes nothing."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.values import recover
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.passes.fuse.report import Record

__all__ = ["SIZES", "frozen_masks"]

#: Fewer entries than these are no evidence: a few channels of a scale may well be 0 or 2.
SIZES: Final = range(8, (1 << 20) + 1)
_PRODUCTS: Final = ("Mul", "Where")


def frozen_masks(model: ir.Model) -> list[Record]:
    """Return a record for every constant of 0 and 1/(1-ratio) that multiplies an activation.

    The constant must hold both values, about as many zeros as the ratio asks for (within five standard deviations), an
    axis along which it is repeated, entries enough to judge by and no order in them, or it is not spoken of:
    a table of weights may hold zeros as well. Nothing but products may read it, and they must be of activations.
    """
    constants = Constants()
    records = []
    for scope in scopes.scopes(model):
        if isinstance(scope, ir.Function):
            continue
        for value in scope.initializers.values():
            record = _frozen(value, constants)
            if record is not None:
                records.append(record)
    return records


def _frozen(value: ir.Value, constants: Constants) -> Record | None:
    users = [use.node for use in value.uses()]
    if any(not _multiplies(user, value, constants) for user in users):
        return None
    tensor = value.const_value
    if not users or tensor is None or tensor.size not in SIZES or value.is_graph_input():
        return None
    array = constants.array(value)
    if array is None or array.ndim < 2:
        return None
    array = array[_repeated(array)]
    if 1 not in array.shape:
        return None
    flat = array.reshape(-1).astype(np.float64)
    kept = float(flat.max())
    zeros = int((flat == 0).sum())
    if kept <= 0 or zeros == 0 or zeros + int((flat == kept).sum()) != flat.size:
        return None
    if _is_ordered(array != 0):
        return None
    scale = kept if kept != 1.0 else _scale_beside(users[0], value, constants)
    if scale <= 1.0:
        return None
    ratio = recover(1.0 - 1.0 / scale, 1e-6)
    if abs(zeros - flat.size * ratio) > 5.0 * math.sqrt(flat.size * ratio * (1.0 - ratio)) + 1.0:
        return None
    x = next((other for other in users[0].inputs if other is not None and other is not value), None)
    axes = _axes(array.shape, None if x is None else x.shape)
    return Record(
        name=value.name or "",
        kind="frozen",
        nodes=tuple(node.name or "" for node in users),
        axes=axes,
        ratio=ratio,
        scale=scale,
        rank=array.ndim,
        proven=(f"{value.name!r} holds 0 and {kept:g} only: {zeros} of {flat.size} entries are 0",),
        reason="the exporter drew this mask once and froze it into a constant: every run drops the same entries",
        notes=("export again from a model with a symbolic batch size, or in inference mode",),
    )


def _repeated(array: np.ndarray) -> tuple[slice, ...]:
    """Return where one copy of the entries lies, of those that are repeated along whole axes."""
    if set(np.unique(array[(slice(0, 2),) * array.ndim]).tolist()) - {0, array.max()}:
        return (slice(None),) * array.ndim
    first = [array.take([0], axis) for axis in range(array.ndim)]
    return tuple(slice(0, 1 if bool((array == one).all()) else None) for one in first)


def _is_ordered(kept: np.ndarray) -> bool:
    """Return whether somebody laid these entries out: a triangle, a permutation, stripes, a checkerboard."""
    table = kept.reshape(-1, next((size for size in reversed(kept.shape) if size != 1), 1))
    flips, ones = np.count_nonzero(np.diff(kept.reshape(-1))), np.count_nonzero(kept)
    if (flips == 1 and min(ones, kept.size - ones) > 3) or flips >= kept.size - 2:  # halves, and every second entry
        return True
    if min(table.shape) < 3:
        return False
    like_first = table == table[0]
    if bool((like_first.all(axis=1) | ~like_first.any(axis=1)).all()):  # stripes and checkerboards
        return True
    steps = [np.diff(table.astype(np.int8), axis=axis) for axis in (0, 1)]
    triangle = all(bool((step >= 0).all() or (step <= 0).all()) for step in steps)
    return triangle or any(bool((table.sum(axis=axis) == 1).all()) for axis in (0, 1))


def _multiplies(user: ir.Node, mask: ir.Value, constants: Constants) -> bool:
    """Return whether a node multiplies an activation by ``mask``: no other constant, and nothing smaller than it."""
    if user.op_type not in _PRODUCTS:
        return False
    others = [value for value in user.inputs if value is not None and value is not mask]
    if user.op_type == "Mul" and any(constants.shape(value) is not None for value in others):
        return False
    shapes = [value.shape for value in others if value.shape is not None and mask.shape is not None]
    return not any(
        size == 1 and isinstance(entries, int) and entries > 1
        for shape in shapes
        if len(shape) == len(mask.shape or ()) and user.op_type == "Mul"
        for size, entries in zip(shape, mask.shape or (), strict=True)
    )


def _scale_beside(user: ir.Node, mask: ir.Value, constants: Constants) -> float:
    """Return the constant that the other operand of ``user`` was multiplied by, 0 where there is none."""
    other = next((operand for operand in user.inputs if operand is not None and operand is not mask), None)
    product = other.producer() if other is not None else None
    uses = list(user.outputs[0].uses())
    neighbours = [product, *(use.node for use in uses if len(uses) == 1)]
    for node in neighbours:
        if node is None or node.op_type not in ("Mul", "Div"):
            continue
        for operand in node.inputs:
            number = constants.number(operand)
            if number is not None and float(number):
                return float(number) if node.op_type == "Mul" else 1.0 / float(number)
    return 0.0


def _axes(mask: tuple[int, ...], shape: ir.Shape | None) -> tuple[int, ...]:
    """Return along which axes the mask is repeated; without a shape, x is taken to have the mask's rank."""
    if shape is None:
        return tuple(axis for axis, entry in enumerate(mask) if entry == 1)
    padded = (1,) * (len(shape) - len(mask)) + mask
    return tuple(axis for axis, (entry, size) in enumerate(zip(padded, shape, strict=False)) if entry == 1 != size)
