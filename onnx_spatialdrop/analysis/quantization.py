"""What QuantizeLinear and DequantizeLinear make of a mask: its two values, rounded. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.operands import Operands
from onnx_spatialdrop.analysis.values import NotRepresentableError, TwoValued
from onnx_spatialdrop.operator.node import describe

__all__ = ["quantized"]


def quantized(node: ir.Node, operands: Operands) -> TwoValued:
    """Return the mask after one of the two ops, by their definitions, where scale and zero point are one number each.

    Raises:
        NotRepresentableError: what is quantized is no mask, or by numbers that are not constant.
    """
    what = f"{describe(node)} ({node.op_type})"
    mask = operands.abstract(node.inputs[0])
    if not isinstance(mask, TwoValued) or mask.x is not None:
        raise NotRepresentableError(f"{what} rounds it; fuse the model first, and quantize then")
    scale = operands.number(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.uint8(0) if given is None else operands.number(given)
    if scale is None or zero is None or "output_dtype" in node.attributes:
        raise NotRepresentableError(f"{what} rounds it by numbers that are not constant; fuse first, and quantize then")
    if node.op_type == "DequantizeLinear":
        numbers = (mask.offset.astype(np.float64) - int(zero)) * float(scale)
        return replace(mask, offset=numbers.astype(scale.dtype))
    limits: Any = np.iinfo(zero.dtype)
    entries = np.rint(mask.offset.astype(np.float64) / float(scale)) + int(zero)
    return replace(mask, offset=np.clip(entries, limits.min, limits.max).astype(zero.dtype))
