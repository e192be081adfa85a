"""What Where and Einsum make of a draw, a mask and a product. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis import draws
from onnx_spatialdrop.analysis.dim_algebra import ShapeOf
from onnx_spatialdrop.analysis.operands import Operands
from onnx_spatialdrop.analysis.two_valued import common_root, common_threshold, different_thresholds, join_layouts
from onnx_spatialdrop.analysis.values import AbstractValue, Layout, NotRepresentableError, TwoValued
from onnx_spatialdrop.operator.node import describe

__all__ = ["einsum_operands", "where"]


def where(node: ir.Node, operands: Operands) -> AbstractValue:
    """Return the abstract value of a Where."""
    condition = operands.abstract(node.inputs[0])
    what = f"{describe(node)} (Where)"
    chosen_by = operands.number(node.inputs[0]) if condition is None else None
    if chosen_by is not None:
        return _chosen(node, node.inputs[1 if chosen_by else 2], operands)
    drawn = _functions_of_draw(node, operands)
    if drawn is not None:
        return draws.combined(node, "Where", drawn)
    if not isinstance(condition, TwoValued) or condition.x is not None:
        raise NotRepresentableError(f"{what} chooses it by a condition that is not the draw's")
    a, b = operands.general(node.inputs[1], condition), operands.general(node.inputs[2], condition)
    chosen = condition.offset.astype(np.bool_)
    shapes = operands.context.shapes
    layout = join_layouts(replace(condition, layout=join_layouts(condition, a, shapes)), b, shapes)
    if a.x is None and b.x is None:
        return replace(common_threshold(condition, a, b), offset=np.where(chosen, a.offset, b.offset), layout=layout)
    x = common_root(what, a, b)
    factor, offset = np.where(chosen, a.factor, b.factor), np.where(chosen, a.offset, b.offset)
    dtype = (a if a.x is not None else b).offset.dtype
    return replace(common_threshold(condition, a, b), factor=factor, offset=offset.astype(dtype), layout=layout, x=x)


def _functions_of_draw(node: ir.Node, operands: Operands) -> list[AbstractValue | float] | None:
    """Return the inputs of a Where as functions of the draw and numbers; None where two outcomes say it all."""
    abstracts = [operands.abstract(value) for value in node.inputs]
    plain = all(abstract is None or isinstance(abstract, TwoValued) for abstract in abstracts)
    if abstracts[0] is None or any(
        isinstance(abstract, TwoValued) and abstract.x is not None for abstract in abstracts
    ):
        return None
    if plain and not any(different_thresholds(abstracts[0], abstract) for abstract in abstracts):
        return None
    given: list[AbstractValue | float] = []
    for abstract, value in zip(abstracts, node.inputs, strict=True):
        if abstract is not None:
            given.append(abstract)
            continue
        number = operands.number(value)
        if number is None:
            return None
        given.append(float(number))
    return given


def _chosen(node: ir.Node, branch: ir.Value | None, operands: Operands) -> TwoValued:
    """Return the branch that a switch chooses, in terms of the draw that the other branch may hold."""
    likes = [abstract for abstract in map(operands.abstract, node.inputs) if isinstance(abstract, TwoValued)]
    if not likes:
        raise NotRepresentableError(f"{describe(node)} (Where) reads the draw, and no threshold has cut it")
    return operands.general(branch, likes[0])


def einsum_operands(node: ir.Node, operands: Operands) -> tuple[TwoValued, TwoValued]:
    """Return the two factors of an Einsum that multiplies entries, such as "nchw,nc->nchw", in the result's order.

    Raises:
        NotRepresentableError: the node sums, repeats, or rearranges what is no mask.
    """
    what = f"{describe(node)} (Einsum)"
    terms, arrow, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    letters = terms.split(",")
    if not arrow or "." in terms or len(letters) != 2 or set("".join(letters)) != set(result):
        raise NotRepresentableError(f"{what} reads it")
    if any(len(set(term)) != len(term) for term in (*letters, result)):
        raise NotRepresentableError(f"{what} reads it")
    abstracts = [operands.abstract(value) for value in node.inputs]
    if not any(isinstance(abstract, TwoValued) for abstract in abstracts):
        raise NotRepresentableError(f"{what} multiplies by the draw itself, which no threshold has cut")
    masks = {
        value: _arranged(what, abstract, term, result)
        for value, abstract, term in zip(node.inputs, abstracts, letters, strict=True)
        if isinstance(abstract, TwoValued)
    }
    like = next(iter(masks.values()))
    if any(abstract is None and term != result for abstract, term in zip(abstracts, letters, strict=True)):
        raise NotRepresentableError(f"{what} rearranges it")
    one, two = (masks.get(value) or operands.general(value, like) for value in node.inputs)
    return one, two


def _arranged(what: str, mask: TwoValued, term: str, result: str) -> TwoValued:
    if term == result:
        return mask
    layout = mask.layout
    if mask.x is not None or isinstance(layout.entries, ShapeOf) or isinstance(layout.dims, ShapeOf):
        raise NotRepresentableError(f"{what} rearranges it")
    if len(layout.entries) != len(term) or len(layout.dims) != len(term):
        raise NotRepresentableError(f"{what} rearranges it")
    order = [term.index(letter) for letter in result if letter in term]
    full = [axis for axis in order if layout.entries[axis] != 1]
    view = layout.view if full == sorted(full) else (*layout.view, ("Transpose", tuple(order)))
    entries, dims = (
        tuple(items[term.index(letter)] if letter in term else 1 for letter in result)
        for items in (layout.entries, layout.dims)
    )
    return replace(mask, layout=Layout(entries, dims, view))
