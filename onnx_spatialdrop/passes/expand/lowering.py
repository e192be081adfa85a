"""What the forms do alike when they write a node out: scales, switches, casts and the last product."""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand.task import Task

__all__ = ["MIN_OPSET", "choose", "corner", "drop", "in_type", "scalar", "scale_of", "switched", "weigh"]

#: Where exists from this opset on; the drawing forms need nothing newer.
MIN_OPSET: Final = 9
_IR_TYPES: Final = {dtype: name for name, dtype in op.FLOAT_TYPES.items()}
_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)


def scalar(group: NodeBuilder, value: ir.Value) -> ir.Value:
    """Return a one-element value without dimensions."""
    if value.shape is not None and len(value.shape) == 0:
        return value
    return group.add("Squeeze", value, role="training")


def switched(group: NodeBuilder, training: ir.Value | None, on: Any, off: Any, role: str) -> ir.Value:
    """Return ``on`` while training and ``off`` otherwise, two 0-d arrays of one type; a constant without a switch."""
    if training is None:
        return group.constant(on, role)
    return group.add("Where", training, group.constant(on, f"{role}_on"), group.constant(off, f"{role}_off"), role=role)


def corner(group: NodeBuilder, task: Task) -> ir.Value:
    """Return a tensor of the mask's shape that depends on the data: X cut down to one index along the shared axes.

    Sources that depend on nothing are taken for constants by optimisers, which then freeze the draw. Where a shared
    axis of X is empty, so is the corner, and the mask with it.
    """
    x, axes = task.x, list(task.attributes.axes)
    if task.dtype == _BFLOAT16:
        x = group.add("Cast", x, role="x_float", to=ir.DataType.FLOAT)
    if not axes:
        return x
    if task.opset == 10:
        # This Slice is inferred to keep named dimensions, and ONNX Runtime then reuses X's memory for the mask. A sum
        # has the same shape and costs a pass over X.
        return group.add("ReduceSum", x, role="corner", axes=axes, keepdims=1)
    starts, ends = [0] * len(axes), [1] * len(axes)
    if task.opset < 10:
        return group.add("Slice", x, role="corner", axes=axes, starts=starts, ends=ends)
    numbers = (
        group.constant(np.array(n, np.int64), r) for n, r in ((starts, "starts"), (ends, "ends"), (axes, "axes"))
    )
    return group.add("Slice", x, *numbers, role="corner")


def in_type(group: NodeBuilder, task: Task, value: ir.Value, role: str) -> ir.Value:
    """Return ``value`` in the type that X is multiplied in: its own, or float for bfloat16."""
    if task.dtype is not None:
        dtype = np.dtype(np.float32) if task.dtype == _BFLOAT16 else task.dtype
        return group.add("Cast", value, role=role, to=_IR_TYPES[dtype])
    if task.opset < 15:
        raise FormError(
            f"{task.where}: the type of X is unknown, and opset {task.opset} has no CastLike to follow it; "
            "declare the type of X (value_info), or convert the model's opset to 15 or newer"
        )
    return group.add("CastLike", value, task.x, role=role)


def scale_of(task: Task) -> np.ndarray:
    """Return what kept values are multiplied by, in the type that X is multiplied in, or float if X's is unknown."""
    dtype = np.dtype(np.float32) if task.dtype is None else task.dtype
    exact = spec.kept_scale(task.attributes.ratio, task.attributes.scale, dtype)
    return exact.astype(np.float32) if dtype == _BFLOAT16 else exact


def drop(group: NodeBuilder, task: Task, mask: ir.Value) -> ir.Value:
    """Return X times the scale where ``mask`` is true and times 0 elsewhere; X as it is while not training."""
    kept = in_type(group, task, mask, "kept")
    scale = scale_of(task)
    factor = switched(group, task.training, scale, np.ones((), scale.dtype), "factor")
    if task.dtype is None:
        factor = in_type(group, task, factor, "factor_like")
    return weigh(group, task, group.add("Mul", kept, factor, role="weights"))


def choose(group: NodeBuilder, task: Task, dropped: ir.Value) -> ir.Value:
    """Return +0 where ``dropped`` is true and X times the scale elsewhere; times 1 while not training.

    Y = where(dropped, +0, X * where(training, scale, 1)), as operator/body.py has it: values last, and a condition that
    is not a Not, or ONNX Runtime makes +0 of a -0 that is kept.
    """
    x = group.add("Cast", task.x, role="x_float", to=ir.DataType.FLOAT) if task.dtype == _BFLOAT16 else task.x
    scale = scale_of(task)
    zero, one = np.zeros((), scale.dtype), np.ones((), scale.dtype)
    factor = switched(group, task.training, scale, one, "factor")
    nothing = group.constant(zero, "zero")
    if task.dtype is None:
        factor = in_type(group, task, factor, "factor_like")
        nothing = in_type(group, task, nothing, "zero_like")
    y = group.add("Where", dropped, nothing, group.add("Mul", x, factor, role="scaled"), role="chosen")
    return group.add("Cast", y, role="rounded", to=ir.DataType.BFLOAT16) if task.dtype == _BFLOAT16 else y


def weigh(group: NodeBuilder, task: Task, weights: ir.Value) -> ir.Value:
    """Return X times ``weights``, one factor for each mask entry; rounded once."""
    if task.dtype != _BFLOAT16:
        return group.add("Mul", task.x, weights, role="product")
    x = next((n.outputs[0] for n in group.nodes if n.outputs[0].name == f"{group.prefix}/x_float"), None)
    if x is None:
        x = group.add("Cast", task.x, role="x_float", to=ir.DataType.FLOAT)
    product = group.add("Mul", x, weights, role="product")
    return group.add("Cast", product, role="rounded", to=ir.DataType.BFLOAT16)
