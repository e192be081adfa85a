"""Turn every dropout that a model spells out in standard ops into a SpatialDropout node.

What is dropout, patterns/ proves; this file only replaces what was proven.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, overload

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes import prune, replace, scopes, seeds, switches, ties
from onnx_spatialdrop.passes.patterns.frozen import frozen_masks
from onnx_spatialdrop.passes.patterns.groups import Group, tagged_groups
from onnx_spatialdrop.passes.patterns.lift import Place, lift
from onnx_spatialdrop.passes.patterns.prove import Proof, kind_of_axes
from onnx_spatialdrop.passes.patterns.recognise import Candidate, recognise
from onnx_spatialdrop.passes.report import Record, Report

__all__ = ["FusePass", "fuse"]


class FusePass(ir.passes.InPlacePass):
    """Replace dropout in standard ops by SpatialDropout nodes; ``report`` says what was done and what was not.

    1. A draw whose every use ends in x * mask, with values 0 and 1/(1-ratio) and a mask that repeats along axes of x,
       becomes one SpatialDropout node a product. The nodes that only it needed go; nothing else does.
    2. The node stands at the product, under its output's name. ``training_mode`` and ``step`` are the model's
       switches, made here if need be, by default on (the file drew before, so it draws now); in a function they are
       constants. A Dropout node that a value switches on and off keeps that value.
    3. Seeds are derived from ``seed``, one a draw. Several products of one mask share its seed, and so their masks.
    4. One entry an element (element-wise dropout) is left alone unless ``elementwise``; then axes is [].
    5. Left alone, with a reason: a mask that is used otherwise or returned; other values than 0 and 1/(1-ratio); noise
       that no threshold cuts; alpha dropout; Dropout nodes that are off; masks frozen into constants; and, unless
       ``bernoulli``, the operator Bernoulli, which ONNX Runtime inverts, so that as the file runs it is no dropout.
    6. With ``for_inference``, for to_inference only: alpha dropout and Bernoulli become nodes too (all of them mean x
       at inference), and a pair of views around a node, each undoing the other, goes as well.
    7. What passes/expand.py wrote becomes the node that it was, seed and all, as long as its tags are there.
    8. A model without any draw is not modified.
    """

    def __init__(
        self,
        *,
        elementwise: bool = False,
        bernoulli: bool = False,
        training_mode: bool = True,
        seed: int = 0,
        for_inference: bool = False,
    ) -> None:
        super().__init__()
        self.elementwise = elementwise or for_inference
        self.bernoulli = bernoulli or for_inference
        self.training_mode = training_mode
        self.seed = seed
        self.for_inference = for_inference
        self.report = Report()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        self.report = Report(refused=frozen_masks(model))
        rewriter = _Rewriter(model, self.training_mode, self.for_inference)
        self.report.fused += [rewriter.undo(group) for group in tagged_groups(model)]  # case 7
        rewriter.finish()
        candidates = recognise(model)
        reasons = [self._reason(candidate) for candidate in candidates]  # cases 4 and 5
        taken = [candidate for candidate, reason in zip(candidates, reasons, strict=True) if not reason]
        present = frozenset(op.read(site.node).seed for site in scopes.spatial_dropouts(model))
        derived = seeds.derive_seeds(self.seed, len(taken), present)  # case 3
        for candidate, seed in zip(taken, derived, strict=True):
            self.report.fused += rewriter.rewrite(candidate, seed)
        rewriter.finish()
        self.report.refused += [
            _refused(candidate, reason) for candidate, reason in zip(candidates, reasons, strict=True) if reason
        ]
        return ir.passes.PassResult(model, modified=bool(self.report.fused))

    def _reason(self, candidate: Candidate) -> str:
        """Return why a candidate is left alone; "" where it becomes a node."""
        if candidate.kind in ("alpha", "feature_alpha") and self.for_inference and not candidate.trace.ends:
            return ""
        if candidate.reason:
            return candidate.reason
        if candidate.source.by_definition and not self.bernoulli:
            return f"{candidate.source.notes[0]}; by ONNX's definition this is dropout, and becomes a node on request"
        if not self.elementwise and all(proof.axes == () for proof in candidate.proofs):
            return "element-wise dropout; it becomes SpatialDropout with axes [] only on request"
        return ""


class _Rewriter:
    """Replaces proven products one after the other, and knows what has been replaced so far."""

    def __init__(self, model: ir.Model, training_mode: bool, lifting: bool) -> None:
        self._model = model
        self._training_mode = training_mode
        self._lifting = lifting
        self._new: dict[ir.Value, ir.Value] = {}
        self._idle: list[ir.Value] = []
        self._views: dict[tuple[ir.Value, ir.Node], ir.Value] = {}
        self._constants: dict[ir.Graph, tuple[ir.Value, ir.Value]] = {}

    def undo(self, group: Group) -> Record:
        """Put back the node that a tagged group of nodes was written out of."""
        node = self._replace(
            group.scope,
            self._current(group.x),
            group.y,
            group.attributes,
            group.training_mode,
            group.step,
            group.name,
        )
        if group.mask is not None:
            replace.take_over(group.mask, node.outputs[1])
        self._idle += [value for made in group.nodes for value in made.outputs]
        rank = None if group.x.shape is None else len(group.x.shape)
        axes = group.attributes.axes
        return Record(
            name=group.name,
            kind=kind_of_axes(tuple(axis % rank for axis in axes), rank) if rank else "spatial",
            nodes=_names(group.nodes),
            axes=axes,
            ratio=group.attributes.ratio,
            scale=group.attributes.scale,
            rank=rank,
            seed=group.attributes.seed,
            proven=("its nodes carry the tags of the SpatialDropout node that they were written out of",),
        )

    def rewrite(self, candidate: Candidate, seed: int) -> list[Record]:
        """Make the nodes of one draw, remove what only they needed, and return their records."""
        names, tied = _names(candidate.trace.nodes), len(candidate.proofs) > 1
        records = []
        for proof in candidate.proofs:
            assert proof.axes is not None
            assert proof.ratio is not None
            assert proof.scale is not None
            place = Place(self._materialized(proof), proof.y, proof.axes)
            if self._lifting and not tied:
                place = lift(place)
            name = _name_of(place.y)
            attributes = spec.Attributes(place.axes, proof.ratio, seed, proof.scale, where=name)
            node = self._replace(candidate.scope, place.x, place.y, attributes, candidate.training_mode, None, name)
            if tied:
                ties.tie(node, names[0])
            records.append(
                Record(
                    name=name,
                    kind=candidate.kind,
                    nodes=names,
                    axes=place.axes,
                    ratio=proof.ratio,
                    scale=attributes.scale,
                    rank=proof.rank,
                    seed=attributes.seed,
                    tied=tied,
                    proven=proof.facts,
                    notes=candidate.notes,
                )
            )
        self._idle += candidate.trace.forms
        return records

    def _materialized(self, proof: Proof) -> ir.Value:
        """Return what the mask is applied to; views that the graph applies to other numbers are repeated for it."""
        value = proof.level.value
        for view in proof.level.views:
            if (value, view) not in self._views:
                self._views[value, view] = self._repeat(view, self._current(value))
            value = self._views[value, view]
        return self._current(value)

    def _repeat(self, view: ir.Node, value: ir.Value) -> ir.Value:
        seen = view.outputs[0]
        output = ir.Value(name=f"{seen.name}/unscaled", type=seen.type, shape=seen.shape)
        attributes = list(view.attributes.values())
        inputs, name = [value, *view.inputs[1:]], f"{view.name}/unscaled"
        assert view.graph is not None
        view.graph.insert_after(view, ir.Node("", view.op_type, inputs, attributes, outputs=[output], name=name))
        self._idle.append(output)
        return output

    def finish(self) -> None:
        """Remove what nothing needs any more; once for all nodes, since they may share what they read."""
        prune.prune_unused(self._model, self._idle)
        self._idle.clear()

    def _current(self, value: ir.Value) -> ir.Value:
        while value in self._new:
            value = self._new[value]
        return value

    def _replace(
        self,
        scope: scopes.Scope,
        x: ir.Value,
        y: ir.Value,
        attributes: spec.Attributes,
        training_mode: ir.Value | None,
        step: ir.Value | None,
        name: str,
    ) -> ir.Node:
        """Put a node in the place of ``y``, and remove what nothing needs any more."""
        old = y.producer()
        assert old is not None
        assert old.graph is not None
        if training_mode is None or step is None:
            default_mode, default_step = self._steering(scope)
            training_mode, step = training_mode or default_mode, step or default_step
        self._import(scope)
        node = op.spatial_dropout(
            x,
            attributes.ratio,
            training_mode=training_mode,
            step=step,
            seed=attributes.seed,
            axes=attributes.axes,
            scale=attributes.scale,
            name=name or None,
        )
        op.write(node, attributes)
        node.outputs[1].name = f"{y.name}/mask"  # before a graph makes up a name
        type_, shape = node.outputs[0].type, node.outputs[0].shape
        old.graph.insert_before(old, node)
        replace.take_over(y, node.outputs[0])
        if node.outputs[0].type is None:
            node.outputs[0].type = type_
        if node.outputs[0].shape is None:
            node.outputs[0].shape = shape
        self._new[y] = node.outputs[0]
        self._idle.append(y)
        return node

    def _import(self, scope: scopes.Scope) -> None:
        scope.opset_imports[spec.DOMAIN] = spec.VERSION
        self._model.opset_imports[spec.DOMAIN] = spec.VERSION

    def _steering(self, scope: scopes.Scope) -> tuple[ir.Value, ir.Value]:
        if not isinstance(scope, ir.Function):
            return switches.add_switches(scope, training_mode=self._training_mode)
        if scope.graph not in self._constants:
            self._constants[scope.graph] = _constants(scope.graph, self._training_mode)
        return self._constants[scope.graph]


def _name_of(y: ir.Value) -> str:
    producer = y.producer()
    return (producer.name if producer is not None else "") or y.name or ""


def _constants(graph: ir.Graph, training_mode: bool) -> tuple[ir.Value, ir.Value]:
    nodes = []
    for name, array in ((switches.TRAINING_MODE, np.array(training_mode)), (switches.STEP, np.array([-1], np.int64))):
        value = ir.Value(name=f"spatial_dropout/{name}", type=ir.TensorType(ir.tensor(array).dtype))
        attribute = ir.AttrTensor("value", ir.tensor(array, name=value.name))
        nodes.append(ir.Node("", "Constant", [], [attribute], outputs=[value], name=value.name))
    first = next(iter(graph))
    graph.insert_before(first, nodes)
    return nodes[0].outputs[0], nodes[1].outputs[0]


def _refused(candidate: Candidate, reason: str) -> Record:
    node, proof = candidate.source.node, candidate.proofs[0] if candidate.proofs else None
    return Record(
        name=node.name or op.describe(node),
        kind=candidate.kind,
        nodes=_names(candidate.trace.nodes),
        axes=_inactive_axes(candidate) if proof is None else proof.axes,
        ratio=candidate.source.ratio if proof is None else proof.ratio,
        scale=None if proof is None else proof.scale,
        rank=None if proof is None else proof.rank,
        proven=() if proof is None else proof.facts,
        reason=reason,
        notes=candidate.notes,
    )


def _inactive_axes(candidate: Candidate) -> tuple[int, ...] | None:
    return () if candidate.kind == "elementwise" else None


def _names(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    return tuple(node.name or op.describe(node) for node in nodes)


M = TypeVar("M", onnx.ModelProto, ir.Model)


@overload
def fuse(
    model: M,
    output: None = None,
    *,
    elementwise: bool = False,
    bernoulli: bool = False,
    training_mode: bool = True,
    seed: int = 0,
) -> tuple[M, Report]: ...
@overload
def fuse(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    elementwise: bool = False,
    bernoulli: bool = False,
    training_mode: bool = True,
    seed: int = 0,
) -> tuple[io.Result, Report]: ...
def fuse(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    elementwise: bool = False,
    bernoulli: bool = False,
    training_mode: bool = True,
    seed: int = 0,
) -> tuple[io.Result, Report]:
    """Turn dropout that a model spells out in standard ops into SpatialDropout nodes.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        elementwise: turn element-wise dropout into nodes with axes [] too; otherwise it is only reported.
        bernoulli: turn masks of the operator Bernoulli into nodes too, by ONNX's definition. ONNX Runtime keeps what
            Bernoulli should drop, so there the model's results change, for the better.
        training_mode: default of the model's switch, made where there is none. True keeps what the file does: it draws.
        seed: base seed, in [-2**63, 2**64); each draw gets one of its own derived from it.

    Returns:
        The same kind of model as came in (from a path, an ir.Model), and the report.

    Raises:
        SpecError: a SpatialDropout node, or a seed, that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    rewriter = FusePass(elementwise=elementwise, bernoulli=bernoulli, training_mode=training_mode, seed=seed)
    result, _ = io.rewrite(model, output, rewriter.call)
    return result, rewriter.report
