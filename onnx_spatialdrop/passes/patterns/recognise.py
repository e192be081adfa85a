"""Find everything in a model that is or might be dropout, and what each is. Never changes the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnx_spatialdrop.passes import scopes
from onnx_spatialdrop.passes.patterns import algebra, prove
from onnx_spatialdrop.passes.patterns.constants import Constants
from onnx_spatialdrop.passes.patterns.dims import Shapes
from onnx_spatialdrop.passes.patterns.exporters import bug_of, kind_of
from onnx_spatialdrop.passes.patterns.forms import Step
from onnx_spatialdrop.passes.patterns.inference import Inferred
from onnx_spatialdrop.passes.patterns.prove import Proof
from onnx_spatialdrop.passes.patterns.sources import Source, is_source, read_source
from onnx_spatialdrop.passes.patterns.trace import Trace, follow

__all__ = ["Candidate", "recognise"]


@dataclass
class Candidate:
    """One draw and what was proven of it.

    Attributes:
        trace: everything that the draw reaches.
        scope: the main graph or the function that holds it.
        proofs: one a product that the rest of the graph reads.
        kind: what the whole is.
        reason: why the whole is no dropout; "" where every product is one and the mask goes nowhere else.
        notes: what is wrong with the file here.
    """

    trace: Trace
    scope: scopes.Scope
    proofs: list[Proof] = field(default_factory=list)
    kind: str = "unknown"
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> Source:
        """The random node."""
        return self.trace.source


def recognise(model: ir.Model) -> list[Candidate]:
    """Return one candidate for every random node, in the order of the file; subgraphs and functions included."""
    anchors = [
        (node, scope, scopes.default_opset(scope, model))
        for scope in scopes.scopes(model)
        for node in scope.all_nodes()
        if is_source(node)
    ]
    if not anchors:
        return []
    position = {node: index for index, node in enumerate(scopes.all_nodes(model))}
    constants = Constants(overridable=(model.ir_version or 10) < 4)
    found = _candidates(model, anchors, position, algebra.Context(constants, Shapes(constants)))
    if any(candidate.reason and _lacks_shapes(candidate) for candidate in found):
        context = algebra.Context(constants, Shapes(constants, Inferred(model)))
        found = _candidates(model, anchors, position, context)
    return found


def _lacks_shapes(candidate: Candidate) -> bool:
    return (
        any(proof.axes is None for proof in candidate.proofs)
        or (not candidate.proofs and any(value.shape is None for value in candidate.trace.forms))
        or not candidate.source.forms
    )


def _candidates(
    model: ir.Model,
    anchors: list[tuple[ir.Node, scopes.Scope, int]],
    position: dict[ir.Node, int],
    context: algebra.Context,
) -> list[Candidate]:
    found = []
    for node, scope, opset in anchors:
        source = read_source(node, opset, context.constants, context.shapes)
        trace = follow(source, context, position, lambda _, form: prove.is_dropout(form))
        found.append(Candidate(trace, scope))
    masks = {
        value: candidate.source.node
        for candidate in found
        for value, form in candidate.trace.forms.items()
        if not isinstance(form, Step) or form.x is None
    }
    for candidate in found:
        _judge(candidate, context.shapes, masks)
        candidate.kind = kind_of(candidate.kind, candidate.proofs, model.producer_name or "")
        bug = bug_of(candidate.source, model.producer_name or "")
        candidate.notes = (*candidate.source.notes, *((bug,) if bug else ()))
    _name_equal_seeds(found)
    return found


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
        if any(level in masks for level, _ in form.x.levels):
            proof = replace(proof, kind="unknown", reason="two draws are multiplied with each other")
        candidate.proofs.append(proof)
    candidate.kind, candidate.reason = _verdict(trace, candidate.proofs)


def _verdict(trace: Trace, proofs: list[Proof]) -> tuple[str, str]:
    """Return what the whole is, and why it is no dropout."""
    bad = next((proof for proof in proofs if proof.reason), None)
    if trace.ends:
        end = trace.ends[0]
        kind = proofs[0].kind if proofs else "unknown"
        return kind, f"the mask is also used otherwise: {end.reason}" if proofs else end.reason
    if bad is not None:
        return bad.kind, bad.reason
    if not proofs:
        return "unknown", "nothing reads the draw"
    views = {trace.products[proof.y].layout.view for proof in proofs}
    if len(views) > 1:
        return "shared_mask", "one mask is used in two arrangements, which one seed cannot tie"
    return ("shared_mask" if len(proofs) > 1 else proofs[0].kind), ""


def _name_equal_seeds(found: list[Candidate]) -> None:
    seeds = Counter(candidate.source.seed for candidate in found if candidate.source.seed is not None)
    for candidate in found:
        seed = candidate.source.seed
        if seed is not None and seeds[seed] > 1:
            note = f"{seeds[seed]} random nodes have the seed {seed:g}: with equal shapes they draw the same numbers"
            candidate.notes = (*candidate.notes, note)
