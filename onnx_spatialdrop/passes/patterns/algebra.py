"""What ONNX's element-wise ops do to a draw, a mask and a product: the forms of their results. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.operator.node import describe
from onnx_spatialdrop.passes.patterns import draws, views
from onnx_spatialdrop.passes.patterns.constants import UNARY, cast_target
from onnx_spatialdrop.passes.patterns.dims import Like, Shapes
from onnx_spatialdrop.passes.patterns.forms import (
    Affine,
    Form,
    Layout,
    NotRepresentableError,
    Scaled,
    Step,
)
from onnx_spatialdrop.passes.patterns.operands import Operands, is_float

__all__ = ["evaluate"]


def evaluate(node: ir.Node, operands: Operands) -> Form:
    """Return the form of the node's first output.

    Raises:
        NotRepresentableError: the result is no form that dropout is made of; the message says why.
    """
    if node.domain not in ("", "ai.onnx"):
        raise NotRepresentableError(f"{describe(node)} ({node.domain}::{node.op_type}) reads it")
    if node.op_type in _ARITHMETIC or node.op_type in draws.COMPARISONS or node.op_type in _LOGICAL:
        return _binary(node, node.op_type, operands)
    if len(node.inputs) == 1 or node.op_type in _ONE_TENSOR:
        form = operands.form(node.inputs[0])
        if form is None:
            raise NotRepresentableError(f"{describe(node)} ({node.op_type}) takes it for a parameter")
        return _of_one(node, form, operands)
    if node.op_type == "Where":
        return _where(node, operands)
    if node.op_type == "Sum" and len(node.inputs) == 2:
        return _binary(node, "Add", operands)
    raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads it")


_ONE_TENSOR: Final = frozenset({"CastLike", "Clip"}) | views.OPS
_LOGICAL: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}
_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": np.maximum,
    "Min": np.minimum,
}


def _of_one(node: ir.Node, form: Form, operands: Operands) -> Form:
    op_type = node.op_type
    if op_type == "Identity":
        return form
    if op_type in views.OPS:
        if isinstance(form, Step) and form.x is not None:
            raise NotRepresentableError(f"{describe(node)} ({op_type}) rearranges it")
        return replace(form, layout=views.view(node, form.layout, operands.context.shapes))
    if op_type in ("Cast", "CastLike"):
        return _cast(node, form)
    if isinstance(form, Affine):
        return draws.of_one(node, form)
    if op_type == "Clip":
        return _clip(node, form, operands)
    if op_type not in UNARY or (form.x is not None and op_type != "Neg"):
        raise NotRepresentableError(f"{describe(node)} ({op_type}) reads it")
    with np.errstate(all="ignore"):
        if form.x is not None:
            return replace(form, factor=-form.factor, offset=-form.offset)
        return replace(form, offset=np.asarray(UNARY[op_type](form.offset)))


def _cast(node: ir.Node, form: Form) -> Form:
    target = cast_target(node) or np.dtype(np.float32)
    if isinstance(form, Affine):
        if is_float(target):
            return replace(form, dtype=form.dtype if target.itemsize > form.dtype.itemsize else target)
        if np.issubdtype(target, np.integer) and min(form.start, form.start + form.slope) >= 0:
            return draws.cut_at_integer(node, form, 0.0, np.dtype(target))
        raise NotRepresentableError(f"{describe(node)} casts the draw to {target}")
    if form.x is not None:
        raise NotRepresentableError(f"{describe(node)} ({node.op_type}) reads it")
    return replace(form, offset=form.offset.astype(target))


def _clip(node: ir.Node, form: Step, operands: Operands) -> Form:
    if form.x is not None:
        raise NotRepresentableError(f"{describe(node)} (Clip) reads it")
    bounds = [node.attributes.get_float("min", -np.inf), node.attributes.get_float("max", np.inf)]
    for position, value in enumerate(node.inputs[1:]):
        number = operands.number(value)
        if value is not None and number is None:
            raise NotRepresentableError(f"{describe(node)} (Clip) has bounds that are not constant")
        bounds[position] = bounds[position] if number is None else float(number)
    return replace(form, offset=np.clip(form.offset, bounds[0], bounds[1]).astype(form.offset.dtype))


def _binary(node: ir.Node, op_type: str, operands: Operands) -> Form:
    left, right = operands.form(node.inputs[0]), operands.form(node.inputs[1])
    if isinstance(left, Affine) or isinstance(right, Affine):
        return draws.with_constant(node, op_type, operands)
    like = left if left is not None else right
    if like is None:
        raise NotRepresentableError("it does not depend on the draw")
    a, b = operands.general(node.inputs[0], like), operands.general(node.inputs[1], like)
    if a.x is None and b.x is None:
        function = {**draws.COMPARISONS, **_LOGICAL, **_ARITHMETIC}[op_type]
        with np.errstate(all="ignore"):
            offset = np.asarray(function(a.offset, b.offset))
        if op_type in _ARITHMETIC:
            offset = offset.astype(a.offset.dtype)
        return replace(like, offset=offset, layout=_together(a, b, operands.context.shapes))
    return _product(node, op_type, a, b, operands)


def _product(node: ir.Node, op_type: str, a: Step, b: Step, operands: Operands) -> Step:
    what = f"{describe(node)} ({op_type})"
    layout = _together(a, b, operands.context.shapes)
    with np.errstate(all="ignore"):
        if op_type in ("Mul", "Div"):
            if (a.x is not None and b.x is not None) or (op_type == "Div" and b.x is not None):
                raise NotRepresentableError(f"{what} combines two activations")
            if op_type == "Div":
                return replace(a, factor=_over(a.factor, b.offset), offset=_over(a.offset, b.offset), layout=layout)
            x, mask = (a, b) if a.x is not None else (b, a)
            scale = np.asarray(mask.offset, np.float64)
            return replace(x, factor=x.factor * scale, offset=x.offset * mask.offset, layout=layout)
        if op_type in ("Add", "Sub"):
            random = [operands.form(value) is not None for value in node.inputs]
            if (a.x is not None and not random[0] and b.x is None) or (
                b.x is not None and not random[1] and a.x is None
            ):
                raise NotRepresentableError(f"{what} adds the noise to an activation instead of multiplying it")
            root, sign = _one_root(what, a, b), 1 if op_type == "Add" else -1
            factor, offset = a.factor + sign * b.factor, a.offset + sign * b.offset
            return replace(a, factor=factor, offset=offset, layout=layout, x=root)
    if op_type in _LOGICAL or op_type in draws.COMPARISONS:
        raise NotRepresentableError(f"{what} combines it with something that is neither constant nor of this draw")
    raise NotRepresentableError(f"{what} reads it")


def _over(numbers: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    # 0 * x / 0 is NaN, never dropout, and NaN is what NumPy gives.
    return np.asarray(np.divide(numbers, divisor.astype(np.float64))).astype(numbers.dtype)


def _one_root(what: str, a: Step, b: Step) -> Scaled:
    if a.x is None or b.x is None:
        x = a.x or b.x
        assert x is not None
        return x
    if a.x.root != b.x.root:
        raise NotRepresentableError(f"{what} combines two activations")
    return Scaled(a.x.root, tuple(dict(a.x.levels + b.x.levels).items()))


def _where(node: ir.Node, operands: Operands) -> Step:
    condition = operands.form(node.inputs[0])
    what = f"{describe(node)} (Where)"
    chosen_by = operands.number(node.inputs[0]) if condition is None else None
    if chosen_by is not None:
        return _chosen(node, node.inputs[1 if chosen_by else 2], operands)
    if not isinstance(condition, Step) or condition.x is not None:
        raise NotRepresentableError(f"{what} chooses it by a condition that is not the draw's")
    a, b = operands.general(node.inputs[1], condition), operands.general(node.inputs[2], condition)
    chosen = condition.offset.astype(np.bool_)
    shapes = operands.context.shapes
    layout = _together(replace(condition, layout=_together(condition, a, shapes)), b, shapes)
    if a.x is None and b.x is None:
        return replace(condition, offset=np.where(chosen, a.offset, b.offset), layout=layout)
    x = _one_root(what, a, b)
    factor, offset = np.where(chosen, a.factor, b.factor), np.where(chosen, a.offset, b.offset)
    dtype = (a if a.x is not None else b).offset.dtype
    return replace(condition, factor=factor, offset=offset.astype(dtype), layout=layout, x=x)


def _chosen(node: ir.Node, branch: ir.Value | None, operands: Operands) -> Step:
    """Return the branch that a switch chooses, in terms of the draw that the other branch may hold."""
    likes = [form for form in map(operands.form, node.inputs) if isinstance(form, Step)]
    if not likes:
        raise NotRepresentableError(f"{describe(node)} (Where) reads the draw, and no threshold has cut it")
    return operands.general(branch, likes[0])


def _together(a: Step, b: Step, shapes: Shapes) -> Layout:
    """Return the layout of a result of two operands of one draw; an operand with equal outcomes is a constant."""
    if a.threshold != b.threshold and not (_is_sure(a) or _is_sure(b)):
        raise NotRepresentableError("one draw is cut at two thresholds")
    one, two = a.layout, b.layout
    if one == two:
        return one
    if isinstance(one.entries, Like) or isinstance(two.entries, Like):
        raise NotRepresentableError("masks of unknown shape meet")
    rank = max(len(one.entries), len(two.entries))
    padded = [(1,) * (rank - len(entries)) + entries for entries in (one.entries, two.entries)]
    if padded[0] != padded[1] or one.view != two.view:
        raise NotRepresentableError("one draw is used in two arrangements")
    if isinstance(one.dims, Like) or isinstance(two.dims, Like):
        raise NotRepresentableError("masks of unknown shape meet")
    return Layout(padded[0], shapes.broadcast(one.dims, two.dims), one.view)


def _is_sure(step: Step) -> bool:
    return bool(step.factor[0] == step.factor[1] and step.offset[0] == step.offset[1])
