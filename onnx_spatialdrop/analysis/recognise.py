"""Find everything in a model that is or might be dropout, and what each is. Never changes the model.

In phases, each a function of what goes in: trace every draw, judge what it makes, resolve scales that stand further on,
check that no node is part of two dropouts, check what a switch turns off, look up defined bits, annotate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_spatialdrop.analysis import prove
from onnx_spatialdrop.analysis.candidate import Candidate, verdict
from onnx_spatialdrop.analysis.deferred_scale import with_deferred_scales
from onnx_spatialdrop.analysis.defined_bits import bits_of
from onnx_spatialdrop.analysis.exporters import bug_of, kind_of
from onnx_spatialdrop.analysis.operands import Context
from onnx_spatialdrop.analysis.sources import is_source, read_source
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.trace import Trace, follow
from onnx_spatialdrop.analysis.values import TwoValued, ViewedValue
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.inferred import Inferred
from onnx_spatialdrop.operator.node import describe

__all__ = ["recognise"]


def recognise(model: ir.Model) -> list[Candidate]:
    """Return one candidate for every random node, in the order of the file; subgraphs and functions included."""
    survey = _Survey.of(model)
    if not survey.anchors:
        return []
    return _candidates(survey, Inferred(model))


@dataclass(frozen=True)
class _Survey:
    """What is looked up of a model once.

    Attributes:
        anchors: its random nodes, the main graph or the function that holds each, and the opset there.
        position: each node's place in the order of the file.
        holders: the node that holds each subgraph.
        overridable: whether initializers that are listed as inputs are constants all the same.
        producer: the name of the tool that wrote the file.
    """

    anchors: list[tuple[ir.Node, scopes.Scope, int]]
    position: dict[ir.Node, int]
    holders: dict[ir.Graph, ir.Node]
    overridable: bool
    producer: str

    @classmethod
    def of(cls, model: ir.Model) -> _Survey:
        anchors = [
            (node, scope, scopes.default_opset(scope, model))
            for scope in scopes.foreign_scopes(model)
            for node in scope.all_nodes()
            if is_source(node)
        ]
        position = {node: index for index, node in enumerate(scopes.all_nodes(model) if anchors else ())}
        return cls(anchors, position, _holders(position), (model.ir_version or 10) < 4, model.producer_name or "")

    def context(self, inferred: Inferred, training: bool) -> Context:
        """Return what is known of values, with all switches on or off."""
        constants = Constants(self.overridable, training)
        return Context(constants, Shapes(constants, inferred), self.holders)


def _holders(nodes: Iterable[ir.Node]) -> dict[ir.Graph, ir.Node]:
    """Return the node that holds each subgraph."""
    return {
        attribute.as_graph(): node
        for node in nodes
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref()
    }


def _candidates(survey: _Survey, inferred: Inferred) -> list[Candidate]:
    context = replace(survey.context(inferred, True), lacks=prove.lacking)
    candidates = _scaled(survey, context)
    if context.contested:
        # A factor between two masks is left to the first, unless that leaves more of them without one.
        apart = survey.context(inferred, True)
        other = _scaled(survey, apart)
        if _accepted(other) > _accepted(candidates):
            context, candidates = apart, other
    candidates = _disjoint(candidates)
    off = replace(survey.context(inferred, False), products=dict(context.products))
    candidates = [
        _checked_off(candidate, anchor, survey, context, off)
        for candidate, anchor in zip(candidates, survey.anchors, strict=True)
    ]
    candidates = [_with_bits(candidate, context) for candidate in candidates]
    return _annotated(candidates, survey.producer)


def _with_bits(candidate: Candidate, context: Context) -> Candidate:
    if candidate.reason or not candidate.source.defined:
        return candidate
    return replace(candidate, bits=bits_of(candidate.trace, candidate.proofs, context.constants))


def _scaled(survey: _Survey, context: Context) -> list[Candidate]:
    return with_deferred_scales(_judged(_traced(survey, context), context), context)


def _accepted(candidates: Iterable[Candidate]) -> int:
    return sum(not candidate.reason for candidate in candidates)


def _traced(survey: _Survey, context: Context) -> list[Candidate]:
    """Trace: what each draw reaches."""
    sources = [read_source(node, opset, context.constants, context.shapes) for node, _, opset in survey.anchors]
    traces = follow(sources, context, survey.position, prove.is_dropout)
    return [Candidate(trace, scope) for trace, (_, scope, _) in zip(traces, survey.anchors, strict=True)]


def _judged(candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
    """Judge: what the products of each draw are, as they stand."""
    masks = {value for candidate in candidates for value in candidate.trace.abstracts if value not in context.products}
    return [_judge(candidate, context.shapes, masks) for candidate in candidates]


def _judge(candidate: Candidate, shapes: Shapes, masks: set[ir.Value]) -> Candidate:
    trace, source = candidate.trace, candidate.source
    if not source.abstracts:
        return replace(candidate, kind=source.kind, reason=source.reason)
    proofs = []
    for y, abstract in trace.products.items():
        proof = prove.prove(y, abstract, shapes)
        if proof.reason:
            proof = prove.alpha(proof, abstract)
        assert abstract.x is not None
        if any(level.value in masks for level, _ in abstract.x.levels):
            proof = replace(proof, kind="unknown", reason="two draws are multiplied with each other", lacks=None)
        proofs.append(proof)
    kind, reason = ("elementwise", source.off) if source.off else verdict(trace, proofs)
    return replace(candidate, proofs=tuple(proofs), kind=kind, reason=reason)


def _disjoint(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Check that no node which goes with one dropout is part of another, or lies between another and its X."""
    owners = Counter(node for candidate in candidates for node in candidate.trace.nodes)
    checked = []
    for candidate in candidates:
        inside = set(candidate.trace.nodes)
        around = (node for node in (*candidate.looked_through(), *candidate.scales()) if node not in inside)
        shared = [node for node in inside if owners[node] > 1] + [node for node in around if owners[node]]
        if shared:
            reason = candidate.reason or f"{describe(shared[0])} is part of another dropout, too"
            candidate = replace(candidate, reason=reason, disjoint=False)
        checked.append(candidate)
    return checked


def _checked_off(
    candidate: Candidate,
    anchor: tuple[ir.Node, scopes.Scope, int],
    survey: _Survey,
    context: Context,
    off: Context,
) -> Candidate:
    """Check off: accept a switch that makes every product the identity; refuse the candidate otherwise."""
    switches = frozenset[ir.Value]() if candidate.reason else _switches(candidate, context)
    if not switches:
        return candidate
    node, _, opset = anchor
    (trace,) = follow([read_source(node, opset, off.constants, off.shapes)], off, survey.position, lambda _: False)
    names = ", ".join(sorted(repr(value.name) for value in switches))
    if len(switches) > 1 and all(proof.scaled_by is None for proof in candidate.proofs):
        return replace(candidate, reason=f"several values switch it on and off: {names}")
    if not all(proof.scaled_by is None and _is_identity(trace, proof.y, proof.level) for proof in candidate.proofs):
        return replace(candidate, reason=f"with {names} false it is not the identity")
    return replace(candidate, training_mode=next(iter(switches)))


def _switches(candidate: Candidate, context: Context) -> frozenset[ir.Value]:
    """Return the values that switch a dropout on and off."""
    source, abstracts = candidate.source, candidate.trace.abstracts
    switches: frozenset[ir.Value] = frozenset()
    if source.training_mode is not None:
        switches = context.constants.switches(source.training_mode)
        if context.constants.number(source.training_mode) is None:
            switches = frozenset({source.training_mode})
    for node in candidate.trace.nodes[1:]:
        for value in node.inputs:
            if value not in abstracts:
                switches |= context.constants.switches(value)
    return switches


def _is_identity(off: Trace, y: ir.Value, x: ViewedValue) -> bool:
    abstract = off.abstracts.get(y)
    if not isinstance(abstract, TwoValued) or abstract.x is None:
        return False
    multiple = dict(abstract.x.levels).get(x)
    return multiple is not None and bool((abs(abstract.factor - multiple) <= 1e-6).all()) and not abstract.offset.any()


def _annotated(candidates: Iterable[Candidate], producer: str) -> list[Candidate]:
    """Annotate: the usual names of masks, and what is wrong with the file."""
    candidates = list(candidates)
    seeds = Counter(candidate.source.seed for candidate in candidates)
    annotated = []
    for candidate in candidates:
        notes = bug_of(candidate.source, producer), _equal_seeds(candidate, seeds), _quantized(candidate)
        kind = kind_of(candidate.kind, candidate.proofs, producer)
        annotated.append(replace(candidate, kind=kind, notes=(*candidate.source.notes, *filter(None, notes))))
    return annotated


def _quantized(candidate: Candidate) -> str:
    readers = (use.node for value in candidate.trace.abstracts for use in value.uses()) if candidate.reason else ()
    node = next((node for node in readers if node.op_type == "QuantizeLinear"), None)
    return "" if node is None else f"{describe(node)} rounds it: fuse the model first, and quantize then"


def _equal_seeds(candidate: Candidate, seeds: Counter[float | int | None]) -> str:
    seed = candidate.source.seed
    if seed is None or seeds[seed] == 1:
        return ""
    return f"{seeds[seed]} random nodes have the seed {seed:g}: with equal shapes they draw the same numbers"
