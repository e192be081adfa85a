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


def of_one(node: ir.Node, form: Curve) -> AbstractValue:
    """Return the form of an op of the draw alone."""
    if ops.entry_function(node) is None or not ops.has(node, Fact.ENTRY):
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads the draw, and no threshold has cut it")
    expression = (node.op_type, _expression(form), *ops.parameters(node))
    return _form(expression, form.layout, _dtype(node.op_type, form.dtype), form.dtype)


def cut_off(form: Curve, target: np.dtype[Any]) -> AbstractValue:
    """Return the draw cast to an integer or to bool."""
    if target == np.bool_:
        return _form(("Not", ("Equal", _expression(form), 0.0)), form.layout, target, form.dtype)
    return _form(("Truncate", _expression(form)), form.layout, target, form.dtype)


def clipped(form: Curve, low: float, high: float) -> AbstractValue:
    """Return the draw cut off at bounds."""
    return _form(("Min", ("Max", _expression(form), low), high), form.layout, form.dtype, form.dtype)


def with_constant(node: ir.Node, op_type: str, operands: Operands) -> AbstractValue:
    """Return the form of an op of the draw and a constant, or of two functions of one draw."""
    what = f"{describe(node)} ({op_type})"
    forms = [operands.form(value) for value in node.inputs]
    if len(forms) != 2:
        raise NotRepresentableError(f"{what} reads it")
    if forms[0] is not None and forms[1] is not None:
        return combined(node, op_type, [form for form in forms if form is not None])
    first = forms[0] is not None
    draw, constant = forms[0 if first else 1], node.inputs[1 if first else 0]
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
    form = _form(made, draw.layout, _dtype(op_type, draw.dtype), draw.dtype)
    return _as_precise_as_its_number(form, [curves.pieces(expression) for expression in nudged])


def _as_precise_as_its_number(form: AbstractValue, nudged: list[curves.Pieces | None]) -> AbstractValue:
    """Return a mask with the precision of its cut: where a function is flat, a rounded number moves it far.

    Args:
        form: the result of a comparison with a number.
        nudged: the same with the number one unit lower, and one higher.
    """
    moved = [found.share for found in nudged if found is not None and len(found.cuts) == 1]
    if not isinstance(form, TwoValued) or form.cuts or len(moved) < 2:
        return form
    return replace(form, precision=max(form.precision, min(abs(share - form.threshold) for share in moved)))


def combined(node: ir.Node, op_type: str, forms: list[AbstractValue | float]) -> AbstractValue:
    """Return the form of an op of several functions of one draw, and of numbers.

    Masks cut at different places come out as a mask of one cut, or they are refused.
    """
    given = [form for form in forms if not isinstance(form, float)]
    layouts = {form.layout for form in given}
    if len(layouts) != 1 or any(isinstance(form, TwoValued) and form.x is not None for form in given):
        raise NotRepresentableError(f"{describe(node)} ({op_type}) combines two uses of one draw")
    dtypes = [_dtype_of(form) for form in given]
    dtype = next((dtype for dtype in dtypes if dtype != np.bool_), dtypes[0])
    parts = [form if isinstance(form, float) else _expression(form) for form in forms]
    if op_type == "Where" and not isinstance(forms[1], float) and not isinstance(forms[2], float):
        dtype = _dtype_of(forms[1])
    made = _form(_named(op_type, dtype, *parts), given[0].layout, _dtype(op_type, dtype), dtype)
    if isinstance(made, TwoValued) and len(made.cuts) > 1 and all(isinstance(form, TwoValued) for form in given):
        raise NotRepresentableError("one draw is cut at two thresholds")
    return made


def _named(op_type: str, dtype: np.dtype[Any], *parts: Any) -> curves.Expression:
    if op_type == "Div" and dtype.kind in "iu":
        return ("Truncate", ("Div", *parts))
    return (op_type, *parts)


def _dtype(op_type: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.bool_) if Fact.BOOLEAN in OPERATORS[op_type].facts else dtype


def _dtype_of(form: AbstractValue) -> np.dtype[Any]:
    return form.offset.dtype if isinstance(form, TwoValued) else form.dtype


def _expression(form: AbstractValue) -> curves.Expression:
    if isinstance(form, Curve):
        return form.expression
    return curves.pick(form.cuts or (form.threshold,), *form.offset.tolist())


def _form(expression: curves.Expression, layout: Layout, dtype: np.dtype[Any], finest: np.dtype[Any]) -> AbstractValue:
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
