"""What ops do to a draw before a threshold has cut it: shift, stretch and bend it, and at last cut it in two. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis import curves
from onnx_spatialdrop.analysis.operands import Operands
from onnx_spatialdrop.analysis.values import AbstractValue, Curve, Layout, NotRepresentableError, TwoValued, half_ulp
from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.ops import OPERATORS, Fact
from onnx_spatialdrop.operator.node import describe

__all__ = ["clipped", "combined", "cut_off", "of_one", "with_constant"]


def of_one(node: ir.Node, abstract: Curve) -> AbstractValue:
    """Return the abstract value of an op of the draw alone."""
    if ops.entry_function(node) is None or not ops.has(node, Fact.ENTRY):
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads the draw, and no threshold has cut it")
    expression = (node.op_type, _expression(abstract), *ops.parameters(node))
    return _abstract(expression, abstract.layout, _dtype(node.op_type, abstract.dtype), abstract.dtype)


def cut_off(abstract: Curve, target: np.dtype[Any]) -> AbstractValue:
    """Return the draw cast to an integer or to bool."""
    if target == np.bool_:
        return _abstract(("Not", ("Equal", _expression(abstract), 0.0)), abstract.layout, target, abstract.dtype)
    return _abstract(("Truncate", _expression(abstract)), abstract.layout, target, abstract.dtype)


def clipped(abstract: Curve, low: float, high: float) -> AbstractValue:
    """Return the draw cut off at bounds."""
    return _abstract(
        ("Min", ("Max", _expression(abstract), low), high), abstract.layout, abstract.dtype, abstract.dtype
    )


def with_constant(node: ir.Node, op_type: str, operands: Operands) -> AbstractValue:
    """Return the abstract value of an op of the draw and a constant, or of two functions of one draw."""
    what = f"{describe(node)} ({op_type})"
    abstracts = [operands.abstract(value) for value in node.inputs]
    if len(abstracts) != 2:
        raise NotRepresentableError(f"{what} reads it")
    if abstracts[0] is not None and abstracts[1] is not None:
        return combined(node, op_type, [abstract for abstract in abstracts if abstract is not None])
    first = abstracts[0] is not None
    draw, constant = abstracts[0 if first else 1], node.inputs[1 if first else 0]
    number = None if constant is None else operands.number(constant)
    if number is None or constant is None or not isinstance(draw, Curve):
        raise NotRepresentableError(_uncut(what, op_type))
    c, layout = float(number), operands.spread(draw.layout, constant)
    if layout is not draw.layout:
        draw = replace(draw, layout=layout)
    unit = 2.0 * half_ulp(draw.dtype if draw.dtype.kind not in "iub" else np.dtype(np.float32))
    made, *nudged = (
        _named(op_type, draw.dtype, *((_expression(draw), n) if first else (n, _expression(draw))))
        for n in (c, c * (1.0 - unit), c * (1.0 + unit))
    )
    abstract = _abstract(made, draw.layout, _dtype(op_type, draw.dtype), draw.dtype)
    return _as_precise_as_its_number(abstract, [curves.pieces(expression) for expression in nudged])


def _as_precise_as_its_number(abstract: AbstractValue, nudged: list[curves.Pieces | None]) -> AbstractValue:
    """Return a mask with the precision of its cut: where a function is flat, a rounded number moves it far.

    Args:
        abstract: the result of a comparison with a number.
        nudged: the same with the number one unit lower, and one higher.
    """
    moved = [found.share for found in nudged if found is not None and len(found.cuts) == 1]
    if not isinstance(abstract, TwoValued) or abstract.cuts or len(moved) < 2:
        return abstract
    return replace(abstract, precision=max(abstract.precision, min(abs(share - abstract.threshold) for share in moved)))


def combined(node: ir.Node, op_type: str, abstracts: list[AbstractValue | float]) -> AbstractValue:
    """Return the abstract value of an op of several functions of one draw, and of numbers.

    Masks cut at different places come out as a mask of one cut, or they are refused.
    """
    given = [abstract for abstract in abstracts if not isinstance(abstract, float)]
    layouts = {abstract.layout for abstract in given}
    if len(layouts) != 1 or any(isinstance(abstract, TwoValued) and abstract.x is not None for abstract in given):
        raise NotRepresentableError(f"{describe(node)} ({op_type}) combines two uses of one draw")
    dtypes = [_dtype_of(abstract) for abstract in given]
    dtype = next((dtype for dtype in dtypes if dtype != np.bool_), dtypes[0])
    parts = [abstract if isinstance(abstract, float) else _expression(abstract) for abstract in abstracts]
    if op_type == "Where" and not isinstance(abstracts[1], float) and not isinstance(abstracts[2], float):
        dtype = _dtype_of(abstracts[1])
    made = _abstract(_named(op_type, dtype, *parts), given[0].layout, _dtype(op_type, dtype), dtype)
    if (
        isinstance(made, TwoValued)
        and len(made.cuts) > 1
        and all(isinstance(abstract, TwoValued) for abstract in given)
    ):
        raise NotRepresentableError("one draw is cut at two thresholds")
    return made


def _named(op_type: str, dtype: np.dtype[Any], *parts: Any) -> curves.Expression:
    if op_type == "Div" and dtype.kind in "iu":
        return ("Truncate", ("Div", *parts))
    return (op_type, *parts)


def _dtype(op_type: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.bool_) if Fact.BOOLEAN in OPERATORS[op_type].facts else dtype


def _dtype_of(abstract: AbstractValue) -> np.dtype[Any]:
    return abstract.offset.dtype if isinstance(abstract, TwoValued) else abstract.dtype


def _expression(abstract: AbstractValue) -> curves.Expression:
    if isinstance(abstract, Curve):
        return abstract.expression
    return curves.pick(abstract.cuts or (abstract.threshold,), *abstract.offset.tolist())


def _abstract(
    expression: curves.Expression, layout: Layout, dtype: np.dtype[Any], finest: np.dtype[Any]
) -> AbstractValue:
    """Return a mask where the function has two values, else the function."""
    found = curves.pieces(expression)
    if found is None:
        return Curve(expression, layout, dtype)
    values = np.array([found.first, found.second], dtype)
    if not found.cuts:
        return TwoValued(0.5, np.zeros(2), values, layout)
    precision = 4 * len(found.cuts) * (half_ulp(finest) if finest.kind not in "iub" else 2.0**-25)
    cuts = found.cuts if len(found.cuts) > 1 else ()
    return TwoValued(found.share, np.zeros(2), values, layout, precision, cuts=cuts)


def _uncut(what: str, op_type: str) -> str:
    if op_type in ("Add", "Sub"):
        return f"{what} adds the draw as noise"
    if op_type in ("Mul", "Div"):
        return f"{what} multiplies by the draw itself, which no threshold has cut"
    if Fact.BOOLEAN in OPERATORS[op_type].facts:
        return f"{what} compares the draw with a threshold that is not one constant number"
    return f"{what} reads the draw, and no threshold has cut it"
