"""Find the scale of a mask that stands behind views, sums and pooling: (x * mask).flatten(2) / keep. Reads only.

All of these commute with a positive factor. So the factor may as well stand at the product, if nothing else reads what
lies between, and if all that it scales is dropout that lacks it: (a * mask_1 + b * mask_2) / keep scales two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.analysis.candidate import Candidate, verdict
from onnx_spatialdrop.analysis.operands import Context
from onnx_spatialdrop.analysis.prove import eps, scale_is_deferred

__all__ = ["resolve_deferred_scales"]

_DEPTH: Final = 16
#: f(c x) = c f(x) for c > 0, of their first input; other inputs are parameters.
_OF_ONE: Final = frozenset(
    {"Cast", "Expand", "Flatten", "Identity", "Neg", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
    | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "MaxPool", "Relu", "Unsqueeze"}
    | {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
)
#: The same of all inputs together.
_OF_ALL: Final = frozenset({"Add", "Concat", "Sub", "Sum", "Max", "Min"})


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


def resolve_deferred_scales(found: list[Candidate], context: Context) -> None:
    """Accept products whose scale stands further on, if everything that it scales comes to be dropout by that."""
    lacking = {
        proof.y: (candidate, index, proof.lacks)
        for candidate in found
        if candidate.reason and not candidate.trace.ends
        for index, proof in enumerate(candidate.proofs)
        if proof.lacks is not None
    }
    if not lacking:
        return
    claimed = {node for candidate in found if not candidate.reason for node in _factors_before(candidate)}
    scalings = _late_scales({y: lacks for y, (_, _, lacks) in lacking.items()}, context)
    scalings = [scaling for scaling in scalings if scaling.node not in claimed]
    settled: dict[ir.Value, Scaling] = {}
    while scalings:
        settled = {y: scaling for scaling in scalings for y in scaling.products}
        whole = [s for s in scalings if all(_all_settled(lacking[y][0], settled) for y in s.products)]
        if len(whole) == len(scalings):
            break
        scalings, settled = whole, {}
    for y, scaling in settled.items():
        candidate, index, _ = lacking[y]
        proof = candidate.proofs[index]
        candidate.proofs[index] = scale_is_deferred(proof, candidate.trace.products[y], scaling.node, scaling.data)
    for candidate in {id(c): c for c in (lacking[y][0] for y in settled)}.values():
        candidate.kind, candidate.reason = verdict(candidate.trace, candidate.proofs)


def _factors_before(candidate: Candidate) -> Iterator[ir.Node]:
    """Yield the nodes whose factors are the scales of dropout after them."""
    for proof in candidate.proofs:
        levels = candidate.trace.products[proof.y].x
        for level, _ in levels.levels if levels is not None else ():
            if level == proof.level:
                break
            node = level.value.producer()
            if node is not None:
                yield node


def _all_settled(candidate: Candidate, settled: dict[ir.Value, Scaling]) -> bool:
    return all(not proof.reason or proof.y in settled for proof in candidate.proofs)


def _late_scales(lacking: Mapping[ir.Value, float], context: Context) -> list[Scaling]:
    """Return the factors that are the scales of products, in the order of these.

    Args:
        lacking: products, and what each would have to be multiplied by to be dropout.
        context: what is known of the model.
    """
    reached: dict[tuple[ir.Node, ir.Value], set[ir.Value]] = defaultdict(set)
    for product, factor in lacking.items():
        found = _factor_after(product, factor, context)
        if found is not None:
            reached[found].add(product)
    scalings = []
    for (node, data), products in reached.items():
        sources = _sources(data, products, _DEPTH)
        if sources is not None and sources == products:
            scalings.append(Scaling(node, data, frozenset(products)))
    return scalings


def _factor_after(product: ir.Value, factor: float, context: Context) -> tuple[ir.Node, ir.Value] | None:
    value = product
    for _ in range(_DEPTH):
        use = _only_use(value)
        if use is None:
            return None
        node, index = use
        if node.domain != "" or len(node.outputs) != 1:
            return None
        if node.op_type in ("Mul", "Div") and len(node.inputs) == 2:
            number = context.constants.number(node.inputs[1 - index])
            if number is None or not float(number) or (node.op_type == "Div" and index):
                return None
            given = float(number) if node.op_type == "Mul" else 1.0 / float(number)
            close = abs(given / factor - 1.0) <= 1e-6 + 4.0 * eps(number.dtype)
            return (node, value) if close and _keeps_shape(node, value, context) else None
        if node.op_type not in _OF_ALL and (node.op_type not in _OF_ONE or index):
            return None
        value = node.outputs[0]
    return None


def _only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    """Return the only use of a value's entries; None where there are more, or it is a result of the graph."""
    uses = [use for use in value.uses() if use.node.op_type not in ("Shape", "Size")]
    return (uses[0].node, uses[0].idx) if len(uses) == 1 and not value.is_graph_output() else None


def _keeps_shape(node: ir.Node, data: ir.Value, context: Context) -> bool:
    """Return whether the factor is one number, and no tensor that the data are repeated along."""
    factor = next((value for value in node.inputs if value is not None and value is not data), data)
    shape, wide = context.shapes.of(factor), context.shapes.known(data)
    if not isinstance(shape, tuple) or any(context.shapes.number(dim) != 1 for dim in shape):
        return False
    return len(shape) <= (1 if wide is None else len(wide))


def _sources(value: ir.Value | None, products: set[ir.Value], depth: int) -> set[ir.Value] | None:
    """Return the products that ``value`` is made of; None where it is made of anything else, too."""
    if value is None or depth == 0:
        return None
    if value in products:
        return {value}
    node = value.producer()
    if node is None or node.domain != "" or _only_use(value) is None:
        return None
    if node.op_type not in _OF_ALL and node.op_type not in _OF_ONE:
        return None
    found = set[ir.Value]()
    for operand in node.inputs if node.op_type in _OF_ALL else node.inputs[:1]:
        inner = _sources(operand, products, depth - 1)
        if inner is None:
            return None
        found |= inner
    return found
