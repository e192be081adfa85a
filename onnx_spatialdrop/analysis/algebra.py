"""What ONNX's element-wise ops do to a draw, a mask and a product: the abstract values of their results. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis import draws, quantization, selection, views
from onnx_spatialdrop.analysis.operands import Operands, is_float
from onnx_spatialdrop.analysis.two_valued import common_root, common_threshold, different_thresholds, join_layouts
from onnx_spatialdrop.analysis.values import AbstractValue, Curve, NotRepresentableError, TwoValued
from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.constants import cast_target
from onnx_spatialdrop.graph.ops import OPERATORS, Fact
from onnx_spatialdrop.operator.node import describe

__all__ = ["evaluate"]


def evaluate(node: ir.Node, operands: Operands) -> AbstractValue:
    """Return the abstract value of the node's first output.

    Raises:
        NotRepresentableError: dropout is not made of the result; the message says why.
    """
    if node.domain != "":
        raise NotRepresentableError(f"{describe(node)} ({node.domain}::{node.op_type}) reads it")
    if len(node.inputs) == 2 and ops.has(node, Fact.ENTRIES) and ops.entry_function(node) is not None:
        return _binary(node, node.op_type, operands)
    if len(node.inputs) == 1 or node.op_type in _ONE_TENSOR:
        abstract = operands.abstract(node.inputs[0])
        if abstract is None:
            raise NotRepresentableError(f"{describe(node)} ({node.op_type}) takes it for a parameter")
        return _of_one(node, abstract, operands)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return quantization.quantized(node, operands)
    if node.op_type == "Where":
        return selection.where(node, operands)
    if node.op_type == "Einsum" and len(node.inputs) == 2:
        a, b = selection.einsum_operands(node, operands)
        return _joined(node, "Mul", a, b, operands)
    if node.op_type == "Sum" and len(node.inputs) == 2:
        return _binary(node, "Add", operands)
    raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads it")


_ONE_TENSOR: Final = frozenset({"CastLike", "Clip"}) | views.OPS


def _of_one(node: ir.Node, abstract: AbstractValue, operands: Operands) -> AbstractValue:
    op_type = node.op_type
    if op_type == "Identity":
        return abstract
    if op_type in views.OPS:
        if isinstance(abstract, TwoValued) and abstract.x is not None:
            raise NotRepresentableError(f"{describe(node)} ({op_type}) rearranges it")
        return replace(abstract, layout=views.view(node, abstract.layout, operands.context.shapes))
    if op_type in ("Cast", "CastLike"):
        return _cast(node, abstract)
    if op_type == "Clip":
        return _clip(node, abstract, operands)
    if isinstance(abstract, Curve):
        return draws.of_one(node, abstract)
    function = ops.entry_function(node) if ops.has(node, Fact.ENTRY) else None
    if function is None or (abstract.x is not None and op_type != "Neg"):
        raise NotRepresentableError(f"{describe(node)} ({op_type}) reads it")
    if abstract.x is not None and abstract.factor.max() > 0 and not abstract.offset.any():
        raise NotRepresentableError(f"{describe(node)} ({op_type}) turns a product over, which is none of its making")
    with np.errstate(all="ignore"):
        if abstract.x is not None:
            return replace(abstract, factor=-abstract.factor, offset=-abstract.offset)
        offset = ops.compute(function, abstract.offset, *ops.parameters(node))
        return replace(abstract, offset=offset if ops.has(node, Fact.BOOLEAN) else offset.astype(abstract.offset.dtype))


def _cast(node: ir.Node, abstract: AbstractValue) -> AbstractValue:
    target = cast_target(node) or np.dtype(np.float32)
    if isinstance(abstract, Curve):
        if is_float(target):
            narrow = is_float(abstract.dtype) and target.itemsize > abstract.dtype.itemsize
            return replace(abstract, dtype=abstract.dtype if narrow else target)
        if target.kind in "ib":
            return draws.cut_off(abstract, target)
        raise NotRepresentableError(f"{describe(node)} casts the draw to {target}")
    if abstract.x is not None:
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads it")
    return replace(abstract, offset=abstract.offset.astype(target))


def _clip(node: ir.Node, abstract: AbstractValue, operands: Operands) -> AbstractValue:
    if isinstance(abstract, TwoValued) and abstract.x is not None:
        raise NotRepresentableError(f"{describe(node)} (Clip) reads it")
    bounds = [node.attributes.get_float("min", -np.inf), node.attributes.get_float("max", np.inf)]
    for position, value in enumerate(node.inputs[1:]):
        number = operands.number(value)
        if value is not None and number is None:
            raise NotRepresentableError(f"{describe(node)} (Clip) has bounds that are not constant")
        bounds[position] = bounds[position] if number is None else float(number)
    if not isinstance(abstract, TwoValued):
        return draws.clipped(abstract, *bounds)
    return replace(abstract, offset=np.clip(abstract.offset, bounds[0], bounds[1]).astype(abstract.offset.dtype))


def _binary(node: ir.Node, op_type: str, operands: Operands) -> AbstractValue:
    left, right = operands.abstract(node.inputs[0]), operands.abstract(node.inputs[1])
    if isinstance(left, Curve) or isinstance(right, Curve):
        return draws.with_constant(node, op_type, operands)
    if different_thresholds(left, right) and all(
        isinstance(abstract, TwoValued) and abstract.x is None for abstract in (left, right)
    ):
        return draws.combined(node, op_type, [abstract for abstract in (left, right) if abstract is not None])
    like = left if left is not None else right
    if like is None:
        raise NotRepresentableError("it does not depend on the draw")
    a, b = operands.general(node.inputs[0], like), operands.general(node.inputs[1], like)
    return _joined(node, op_type, a, b, operands)


def _joined(node: ir.Node, op_type: str, a: TwoValued, b: TwoValued, operands: Operands) -> TwoValued:
    if a.x is not None or b.x is not None:
        return _product(node, op_type, a, b, operands)
    row = OPERATORS[op_type]
    assert row.function is not None
    with np.errstate(all="ignore"):
        offset = ops.compute(row.function, a.offset, b.offset)
    if Fact.BOOLEAN not in row.facts:
        offset = offset.astype(a.offset.dtype)
    return replace(common_threshold(a, b), offset=offset, layout=join_layouts(a, b, operands.context.shapes))


def _product(node: ir.Node, op_type: str, a: TwoValued, b: TwoValued, operands: Operands) -> TwoValued:
    what = f"{describe(node)} ({op_type})"
    layout = join_layouts(a, b, operands.context.shapes)
    with np.errstate(all="ignore"):
        if op_type in ("Mul", "Div"):
            if (a.x is not None and b.x is not None) or (op_type == "Div" and b.x is not None):
                raise NotRepresentableError(f"{what} combines two activations")
            if op_type == "Div":
                factor, offset = _over(a.factor, b.offset), _over(a.offset, b.offset)
                return replace(common_threshold(a, b), factor=factor, offset=offset, layout=layout, x=a.x)
            x, mask = (a, b) if a.x is not None else (b, a)
            scale = np.asarray(mask.offset, np.float64)
            factor, offset = x.factor * scale, x.offset * mask.offset
            return replace(common_threshold(x, mask), factor=factor, offset=offset, layout=layout, x=x.x)
        if op_type in ("Add", "Sub"):
            random = [operands.abstract(value) is not None for value in node.inputs]
            if (a.x is not None and not random[0] and b.x is None) or (
                b.x is not None and not random[1] and a.x is None
            ):
                raise NotRepresentableError(f"{what} adds the noise to an activation instead of multiplying it")
            root, sign = common_root(what, a, b), 1 if op_type == "Add" else -1
            factor, offset = a.factor + sign * b.factor, a.offset + sign * b.offset
            return replace(common_threshold(a, b), factor=factor, offset=offset, layout=layout, x=root)
    if Fact.BOOLEAN in OPERATORS[op_type].facts:
        raise NotRepresentableError(f"{what} combines it with something that is neither constant nor of this draw")
    raise NotRepresentableError(f"{what} reads it")


def _over(numbers: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    # 0 * x / 0 is NaN, never dropout, and NaN is what NumPy gives.
    return np.asarray(np.divide(numbers, divisor.astype(np.float64))).astype(numbers.dtype)
