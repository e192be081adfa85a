"""Find everything in a model that is or might be dropout, and what each is. Never changes the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from onnx_spatialdrop.analysis import prove
from onnx_spatialdrop.analysis.candidate import Candidate, verdict
from onnx_spatialdrop.analysis.deferred_scale import resolve_deferred_scales
from onnx_spatialdrop.analysis.exporters import bug_of, kind_of
from onnx_spatialdrop.analysis.operands import Context
from onnx_spatialdrop.analysis.sources import is_source, read_source
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.trace import Trace, follow
from onnx_spatialdrop.analysis.values import AbstractValue, TwoValued, ViewedValue
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.inferred import Inferred

__all__ = ["recognise"]


def recognise(model: ir.Model) -> list[Candidate]:
    """Return one candidate for every random node, in the order of the file; subgraphs and functions included."""
    anchors = [
        (node, scope, scopes.default_opset(scope, model))
        for scope in scopes.foreign_scopes(model)
        for node in scope.all_nodes()
        if is_source(node)
    ]
    if not anchors:
        return []
    position = {node: index for index, node in enumerate(scopes.all_nodes(model))}
    found = _candidates(model, anchors, position, None)
    if any(_lacks_shapes(candidate) for candidate in found):
        found = _candidates(model, anchors, position, Inferred(model))
    return found


def _holders(nodes: Iterable[ir.Node]) -> dict[ir.Graph, ir.Node]:
    """Return the node that holds each subgraph."""
    found = {}
    for node in nodes:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                found[attribute.as_graph()] = node
    return found


def _lacks_shapes(candidate: Candidate) -> bool:
    if not candidate.reason:
        return any(proof.rank is None for proof in candidate.proofs)
    return (
        any(proof.axes is None for proof in candidate.proofs)
        or (not candidate.proofs and any(value.shape is None for value in candidate.trace.forms))
        or not candidate.source.forms
    )


def _candidates(
    model: ir.Model,
    anchors: list[tuple[ir.Node, scopes.Scope, int]],
    position: dict[ir.Node, int],
    inferred: Inferred | None,
) -> list[Candidate]:
    overridable = (model.ir_version or 10) < 4
    holders = _holders(position)
    context, off = (_context(Constants(overridable, training), inferred, holders) for training in (True, False))
    found = [_traced(anchor, position, context) for anchor in anchors]
    products = frozenset(
        value for candidate in found for value, form in candidate.trace.forms.items() if _is_product(form)
    )
    context, off = replace(context, products=products), replace(off, products=products)
    for index, candidate in enumerate(found):
        if _reaches_past(candidate, products):
            found[index] = _traced(anchors[index], position, context)
    masks = {
        value: candidate.source.node
        for candidate in found
        for value, form in candidate.trace.forms.items()
        if not isinstance(form, TwoValued) or form.x is None
    }
    for candidate in found:
        _judge(candidate, context.shapes, masks)
    resolve_deferred_scales(found, context)
    for candidate, (node, _, opset) in zip(found, anchors, strict=True):
        if not candidate.reason:
            switched = _switches(candidate, context)
            if switched:
                idle = read_source(node, opset, off.constants, off.shapes)
                _judge_off(candidate, switched, follow(idle, off, position, lambda _, __: False))
        candidate.kind = kind_of(candidate.kind, candidate.proofs, model.producer_name or "")
        bug = bug_of(candidate.source, model.producer_name or "")
        candidate.notes = (*candidate.source.notes, *((bug,) if bug else ()))
    _name_equal_seeds(found)
    return found


def _traced(anchor: tuple[ir.Node, scopes.Scope, int], position: dict[ir.Node, int], context: Context) -> Candidate:
    node, scope, opset = anchor
    source = read_source(node, opset, context.constants, context.shapes)
    return Candidate(follow(source, context, position, lambda _, form: prove.is_dropout(form)), scope)


def _is_product(form: AbstractValue) -> bool:
    return isinstance(form, TwoValued) and form.x is not None


def _reaches_past(candidate: Candidate, products: frozenset[ir.Value]) -> bool:
    """Return whether a scale was looked for before the product of another draw, which may have it for its own."""
    forms = candidate.trace.forms.values()
    reached = (form.x for form in forms if isinstance(form, TwoValued) and form.x is not None)
    return any(level.value in products for x in reached for level, _ in x.levels[:-1])


def _context(constants: Constants, inferred: Inferred | None, holders: dict[ir.Graph, ir.Node]) -> Context:
    return Context(constants, Shapes(constants, inferred), holders=holders)


def _switches(candidate: Candidate, context: Context) -> frozenset[ir.Value]:
    """Return the values that switch a dropout on and off."""
    source, forms = candidate.source, candidate.trace.forms
    found: frozenset[ir.Value] = frozenset()
    if source.training_mode is not None:
        found = context.constants.switches(source.training_mode) or frozenset({source.training_mode})
    for node in candidate.trace.nodes[1:]:
        for value in node.inputs:
            if value not in forms:
                found |= context.constants.switches(value)
    return found


def _judge_off(candidate: Candidate, switches: frozenset[ir.Value], off: Trace) -> None:
    """Accept a switch that makes every product the identity; refuse the candidate otherwise."""
    names = ", ".join(sorted(repr(value.name) for value in switches))
    if any(proof.scaled_by is not None for proof in candidate.proofs):
        candidate.reason = f"with {names} false it is not the identity"
        return
    if len(switches) > 1:
        candidate.reason = f"several values switch it on and off: {names}"
        return
    for proof in candidate.proofs:
        form = off.forms.get(proof.y)
        if not isinstance(form, TwoValued) or form.x is None or not _is_identity(form, proof.level):
            candidate.reason = f"with {names} false it is not the identity"
            return
    candidate.training_mode = next(iter(switches))


def _is_identity(form: TwoValued, level: ViewedValue) -> bool:
    assert form.x is not None
    multiple = dict(form.x.levels).get(level)
    return multiple is not None and bool((abs(form.factor - multiple) <= 1e-6).all()) and not form.offset.any()


def _judge(candidate: Candidate, shapes: Shapes, masks: dict[ir.Value, ir.Node]) -> None:
    trace, source = candidate.trace, candidate.source
    if not source.forms:
        candidate.kind, candidate.reason = source.kind, source.reason
        return
    for y, form in trace.products.items():
        proof = prove.prove(y, form, shapes)
        if proof.reason:
            proof = prove.alpha(proof, form)
        assert form.x is not None
        if any(level.value in masks for level, _ in form.x.levels):
            proof = replace(proof, kind="unknown", reason="two draws are multiplied with each other")
        candidate.proofs.append(proof)
    candidate.kind, candidate.reason = verdict(trace, candidate.proofs)
    if source.off:
        candidate.kind, candidate.reason = "elementwise", source.off


def _name_equal_seeds(found: list[Candidate]) -> None:
    seeds = Counter(candidate.source.seed for candidate in found if candidate.source.seed is not None)
    for candidate in found:
        seed = candidate.source.seed
        if seed is not None and seeds[seed] > 1:
            note = f"{seeds[seed]} random nodes have the seed {seed:g}: with equal shapes they draw the same numbers"
            candidate.notes = (*candidate.notes, note)
