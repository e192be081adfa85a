"""The form "dropout": ONNX's Dropout on ones of the mask's shape. It promises the distribution.

Two variants: inference in ONNX Runtime needs Dropout's mask to be used, or its optimiser deletes the node; trainers
switch Dropout off by themselves in evaluation, so there the value has to be used.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import lowering, uniform
from onnx_spatialdrop.passes.expand.task import Task

__all__ = ["BY_VALUE", "lower"]

#: Targets that switch Dropout off in evaluation.
BY_VALUE: Final = frozenset({"onnxruntime-training", "onnx2torch"})


def lower(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    """Append Dropout on ones and the product with X to ``group``; return Y and the mask.

    Raises:
        FormError: the node's scale or ratio is one that the target's Dropout cannot have.
    """
    if task.target in BY_VALUE:
        return _by_value(group, task)
    ones = _ones(group, task, ir.DataType.FLOAT)
    if task.attributes.ratio == 1.0:  # an error for ONNX Runtime's Dropout; 1 < 0 and 1 < 2 say the same
        mask = group.add("Less", ones, uniform.threshold(group, task), role="mask")
    else:
        _, mask = _dropout(group, task, ones)
    return lowering.drop(group, task, mask), mask


def _ones(group: NodeBuilder, task: Task, dtype: ir.DataType) -> ir.Value:
    # Nothing is less than itself, NaN included; no optimiser was seen to know.
    corner = lowering.corner(group, task)
    never = group.add("Less", corner, corner, role="never")
    return group.add("Cast", group.add("Not", never, role="always"), role="ones", to=dtype)


def _dropout(group: NodeBuilder, task: Task, ones: ir.Value) -> tuple[ir.Value, ir.Value]:
    ratio = group.constant(np.float32(task.attributes.ratio), "ratio")
    training = group.constant(np.array(True), "training") if task.training is None else task.training
    inputs = [ones, ratio, training]
    if task.target == "onnx2torch":
        # It refuses a seed (PyTorch's generator draws there), and of a Dropout with two outputs it takes the first
        # sample's for all samples.
        value = group.add("Dropout", *inputs, role="dropped")
        return value, group.add("Cast", value, role="mask", to=ir.DataType.BOOL)
    # ONNX Runtime starts every run from the next seed, whose first draw hardly differs from the last one's, so that the
    # first entry would have one fate for ever: a copy of the first row draws before the mask does.
    zero, one, end = (group.constant(np.array([n], np.int64), f"row_{n}") for n in (0, 1, 2**31 - 1))
    first = group.add("Slice", ones, zero, one, zero, role="first_row")
    inputs[0] = group.add("Concat", first, ones, role="ones_and_one_row", axis=0)
    drawn = group.outputs("Dropout", inputs, ["drawn", "drawn_mask"], seed=task.draw)
    value, mask = (
        group.add("Slice", each, one, end, zero, role=role)
        for each, role in zip(drawn, ("dropped", "mask"), strict=True)
    )
    return value, mask


def _by_value(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    ratio = task.attributes.ratio
    if ratio == 1.0 and task.target != "onnx2torch":
        raise FormError(
            f"{task.where}: ratio is 1, which {task.target}'s Dropout refuses; lower the ratio, or use form='uniform'"
        )
    dtype = np.dtype(np.float32) if task.dtype is None else task.dtype
    wanted = float(spec.kept_scale(ratio, task.attributes.scale, dtype))
    given = float(spec.kept_scale(ratio, 0.0, dtype))
    if ratio < 1.0 and abs(wanted - given) > 2.0 * float(max(np.spacing(np.float32(given)), given * _epsilon(dtype))):
        raise FormError(
            f"{task.where}: scale is {wanted:g}, but Dropout multiplies by 1 / (1 - ratio) = {given:g} and "
            f"{task.target} switches only that off in evaluation; use form='uniform', or scale=0"
        )
    is_double = dtype == np.float64
    value, mask = _dropout(group, task, _ones(group, task, ir.DataType.DOUBLE if is_double else ir.DataType.FLOAT))
    if task.dtype not in (np.float32, np.float64):
        value = lowering.in_type(group, task, value, "weights")
    return lowering.weigh(group, task, value), mask


def _epsilon(dtype: np.dtype[np.floating]) -> float:
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(str(dtype), 2.0**-23)
