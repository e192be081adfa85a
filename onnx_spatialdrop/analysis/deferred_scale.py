"""Find the scale of a mask that stands behind views, sums and pooling: (x * mask).flatten(2) / keep. Reads only.

All of these commute with a positive factor. So the factor may as well stand at the product, if nothing else reads what
lies between, and if all that it scales is dropout that lacks it: (a * mask_1 + b * mask_2) / keep scales two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_spatialdrop.analysis.candidate import Candidate, verdict
from onnx_spatialdrop.analysis.commuting import DEPTH, commutes, is_close, only_use, products_behind
from onnx_spatialdrop.analysis.operands import Context
from onnx_spatialdrop.analysis.prove import eps, scale_is_deferred

__all__ = ["with_deferred_scales"]


@dataclass(frozen=True)
class Scaling:
    """A constant factor that is the scale of several products.

    Attributes:
        node: the Mul or Div.
        data: its input that is not the factor.
        products: what it scales.
    """

    node: ir.Node
    data: ir.Value
    products: frozenset[ir.Value]


def with_deferred_scales(candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
    """Accept those whose scale stands further on, if everything that it scales comes to be dropout by that."""
    lacking = {
        proof.y: (candidate, proof.lacks)
        for candidate in candidates
        if candidate.reason and not candidate.trace.ends
        for proof in candidate.proofs
        if proof.lacks is not None
    }
    if not lacking:
        return list(candidates)
    taken = {node for candidate in candidates if not candidate.reason for node in candidate.looked_through()}
    scalings = [s for s in _scalings({y: lacks for y, (_, lacks) in lacking.items()}, context) if s.node not in taken]
    scaled_by: dict[ir.Value, Scaling] = {}
    while scalings:
        scaled_by = {y: scaling for scaling in scalings for y in scaling.products}
        whole = [s for s in scalings if all(_is_whole(lacking[y][0], scaled_by) for y in s.products)]
        if len(whole) == len(scalings):
            break
        scalings, scaled_by = whole, {}
    return [_accepted(candidate, scaled_by) for candidate in candidates]


def _accepted(candidate: Candidate, scaled_by: Mapping[ir.Value, Scaling]) -> Candidate:
    if not any(proof.y in scaled_by for proof in candidate.proofs):
        return candidate
    products = candidate.trace.products
    proofs = [
        scale_is_deferred(proof, products[proof.y], scaled_by[proof.y].node, scaled_by[proof.y].data)
        if proof.y in scaled_by
        else proof
        for proof in candidate.proofs
    ]
    kind, reason = verdict(candidate.trace, proofs)
    return replace(candidate, proofs=tuple(proofs), kind=kind, reason=reason)


def _is_whole(candidate: Candidate, scaled_by: Mapping[ir.Value, Scaling]) -> bool:
    return all(not proof.reason or proof.y in scaled_by for proof in candidate.proofs)


def _scalings(lacking: Mapping[ir.Value, float], context: Context) -> list[Scaling]:
    """Return the factors that are the scales of products, in the order of these.

    Args:
        lacking: products, and what each would have to be multiplied by to be dropout.
        context: what is known of the model.
    """
    reached: dict[tuple[ir.Node, ir.Value], set[ir.Value]] = defaultdict(set)
    for product, factor in lacking.items():
        place = _factor_after(product, factor, context)
        if place is not None:
            reached[place].add(product)
    return [
        Scaling(node, data, frozenset(products))
        for (node, data), products in reached.items()
        if products_behind(data, products) == products
    ]


def _factor_after(product: ir.Value, factor: float, context: Context) -> tuple[ir.Node, ir.Value] | None:
    value = product
    for _ in range(DEPTH):
        use = only_use(value)
        if use is None:
            return None
        node, index = use
        if node.op_type in ("Mul", "Div") and not node.domain and len(node.inputs) == 2:
            number = context.constants.number(node.inputs[1 - index])
            if number is None or not float(number) or (node.op_type == "Div" and index):
                return None
            given = float(number) if node.op_type == "Mul" else 1.0 / float(number)
            fits = is_close(given, factor, eps(number.dtype)) and _keeps_shape(node, value, context)
            return (node, value) if fits else None
        if not commutes(node, index):
            return None
        value = node.outputs[0]
    return None


def _keeps_shape(node: ir.Node, data: ir.Value, context: Context) -> bool:
    """Return whether the factor is one number, and no tensor that the data are repeated along."""
    factor = next((value for value in node.inputs if value is not None and value is not data), data)
    shape, wide = context.shapes.of(factor), context.shapes.known(data)
    if not isinstance(shape, tuple) or any(context.shapes.number(dim) != 1 for dim in shape):
        return False
    return len(shape) <= (1 if wide is None else len(wide))
