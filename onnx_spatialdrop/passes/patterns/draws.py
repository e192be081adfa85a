"""What ops do to a draw before a threshold has cut it: shift it, stretch it, and at last cut it in two. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.operator.node import describe
from onnx_spatialdrop.passes.patterns.forms import Affine, Form, NotRepresentableError, Step, step_of
from onnx_spatialdrop.passes.patterns.operands import Operands

__all__ = ["COMPARISONS", "cut_at_integer", "of_one", "with_constant"]

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Equal": np.equal,
}


def of_one(node: ir.Node, form: Affine) -> Form:
    """Return the form of an op of the draw alone."""
    if node.op_type == "Neg":
        return form.map(lambda u: -u)
    if node.op_type == "Floor":
        return cut_at_integer(node, form, 0.0, form.dtype)
    if node.op_type == "Ceil":
        step = cut_at_integer(node, form, 0.0, form.dtype)
        return replace(step, offset=step.offset + step.offset.dtype.type(1))
    if node.op_type == "Round":
        return cut_at_integer(node, form, 0.5, form.dtype)
    if node.op_type == "Sign":
        return step_of(form, 0.0, -1, 1, form.dtype)
    raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads the draw, and no threshold has cut it")


def cut_at_integer(node: ir.Node, form: Affine, shift: float, dtype: np.dtype[Any]) -> Step:
    """Return floor(draw + shift) where that takes two values; ONNX's Round is that with a shift of one half."""
    low, high = sorted((form.start + shift, form.start + form.slope + shift))
    # Half an ulp of slack: 0.7f + u stays below 1.7, but its ends are only known as the type rounds them.
    first = int(np.floor(low + 1e-9)) + 1
    if not low < first < high or high > first + 1 + 1e-6:
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) does not cut the draw into two values")
    return step_of(form, first - shift, first - 1, first, dtype)


def with_constant(node: ir.Node, op_type: str, operands: Operands) -> Form:
    """Return the form of an op of the draw and a constant."""
    what = f"{describe(node)} ({op_type})"
    forms = [operands.form(value) for value in node.inputs]
    first = isinstance(forms[0], Affine)
    draw, constant = forms[0 if first else 1], node.inputs[1 if first else 0]
    if forms[0] is not None and forms[1] is not None:
        raise NotRepresentableError(f"{what} combines two uses of one draw")
    if not isinstance(draw, Affine) or constant is None or len(node.inputs) != 2:
        raise NotRepresentableError(f"{what} reads it")
    number = operands.number(constant)
    if number is None:
        raise NotRepresentableError(_uncut(what, op_type))
    c, layout = float(number), operands.spread(draw.layout, constant)
    if layout is not draw.layout:
        draw = replace(draw, layout=layout)
    if op_type in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
        less = op_type.startswith("Less") == first
        return step_of(draw, c, less, not less, np.dtype(np.bool_))
    functions: dict[str, Callable[[float], float]] = {
        "Add": lambda u: u + c,
        "Sub": (lambda u: u - c) if first else (lambda u: c - u),
        "Mul": lambda u: u * c,
    }
    if c and first:
        functions["Div"] = lambda u: u / c
    if op_type not in functions:
        raise NotRepresentableError(f"{what} reads the draw, and no threshold has cut it")
    return draw.map(functions[op_type])


def _uncut(what: str, op_type: str) -> str:
    if op_type in ("Add", "Sub"):
        return f"{what} adds the draw as noise"
    if op_type in ("Mul", "Div"):
        return f"{what} multiplies by the draw itself, which no threshold has cut"
    if op_type in COMPARISONS:
        return f"{what} compares the draw with a threshold that is not one constant number"
    return f"{what} reads the draw, and no threshold has cut it"
