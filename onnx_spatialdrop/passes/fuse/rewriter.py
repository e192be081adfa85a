"""Put SpatialDropout nodes where dropout was proven. What was proven, and whether to act on it, is not decided here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.broadcast_axes import kind_of_axes
from onnx_spatialdrop.analysis.candidate import Candidate
from onnx_spatialdrop.analysis.defined_bits import DefinedBits
from onnx_spatialdrop.analysis.prove import Proof
from onnx_spatialdrop.graph import controls, prune, replace, scopes, ties
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse.hoist import Place, hoist
from onnx_spatialdrop.passes.fuse.report import Record
from onnx_spatialdrop.passes.fuse.tagged import ExpandedRegion

__all__ = ["Rewriter", "names"]

_STEP_0: Final = "step_0"


class Rewriter:
    """Replaces proven products one after the other, and knows what has been replaced so far."""

    def __init__(self, model: ir.Model, training_mode: bool, lifting: bool) -> None:
        self._model = model
        self._training_mode = training_mode
        self._lifting = lifting
        self._new: dict[ir.Value, ir.Value] = {}
        self._idle: list[ir.Value] = []
        self._masks: list[ir.Value] = []
        self._scalings: dict[ir.Node, ir.Value] = {}
        self._views: dict[tuple[ir.Value, ir.Node], ir.Value] = {}
        self._constants: dict[tuple[ir.Graph, str], ir.Value] = {}

    def undo(self, region: ExpandedRegion) -> Record:
        """Put back the node that a tagged region of nodes was written out of."""
        step = region.step
        if step is not None and step.producer() is None and step.graph is None and isinstance(region.scope, ir.Graph):
            step.type, step.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
            region.scope.register_initializer(step)
        node = self._replace(
            region.scope,
            self._current(region.x),
            region.y,
            region.attributes,
            region.training_mode,
            region.step,
            region.name,
        )
        node.metadata_props.update(region.metadata)
        if region.mask is not None:
            replace.take_over(region.mask, node.outputs[1])
        self._idle += [value for made in region.nodes for value in made.outputs]
        if region.mask_input is not None:
            self._masks.append(region.mask_input)
        rank = None if region.x.shape is None else len(region.x.shape)
        axes = region.attributes.axes
        return Record(
            name=region.name,
            kind=kind_of_axes(tuple(axis % rank for axis in axes), rank) if rank else "spatial",
            nodes=names(region.nodes),
            axes=axes,
            ratio=region.attributes.ratio,
            scale=region.attributes.scale,
            rank=rank,
            seed=region.attributes.seed,
            proven=("its nodes carry the tags of the SpatialDropout node that they were written out of",),
        )

    def rewrite(self, candidate: Candidate, seed: int) -> list[Record]:
        """Make the nodes of one draw, remove what only they needed, and return their records."""
        parts, tied = names(candidate.trace.nodes), len(candidate.proofs) > 1
        bits = candidate.bits if isinstance(candidate.bits, DefinedBits) else None
        step = None if bits is None else bits.step or self._step_0(candidate.scope)
        records = []
        for proof in candidate.proofs:
            assert proof.axes is not None
            assert proof.ratio is not None
            assert proof.scale is not None
            place = Place(self._materialized(proof), proof.y, proof.axes)
            if self._lifting and not tied:
                place = hoist(place)
            name = _name_of(place.y)
            ratio = proof.ratio if bits is None else bits.ratio(proof.ratio)
            attributes = spec.Attributes(place.axes, ratio, seed, proof.scale, where=name)
            node = self._replace(candidate.scope, place.x, place.y, attributes, candidate.training_mode, step, name)
            if tied:
                ties.tie(node, parts[0])
            records.append(
                Record(
                    name=name,
                    kind=candidate.kind,
                    nodes=parts,
                    axes=place.axes,
                    ratio=ratio,
                    scale=attributes.scale,
                    rank=proof.rank,
                    seed=attributes.seed,
                    tied=tied,
                    proven=proof.facts,
                    notes=candidate.notes,
                )
            )
            if proof.scaled_by is not None:
                self._scalings[proof.scaled_by[0]] = proof.scaled_by[1]
        self._idle += candidate.trace.abstracts
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
        for node, data in self._scalings.items():
            self._idle += [value for value in node.inputs if value is not None and value is not data]
            replace.bypass(node, self._current(data))
        self._scalings.clear()
        prune.prune_unused(self._model, self._idle)
        prune.prune_unused(self._model, self._masks)  # inputs, which go only when nothing reads them to begin with
        self._idle.clear()
        self._masks.clear()

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
        if x.shape is not None and not 1 <= len(x.shape) <= spec.MAX_RANK:
            return self._pass_on(x, y, old)
        training_mode = training_mode or self._control_input(scope, controls.TRAINING_MODE)
        step = step or self._control_input(scope, controls.STEP)
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

    def _pass_on(self, x: ir.Value, y: ir.Value, old: ir.Node) -> ir.Node:
        """Put an Identity in the place of ``y``: at inference all is x, of any rank."""
        assert old.graph is not None
        node = ir.Node("", "Identity", [x], name=old.name)
        old.graph.insert_before(old, node)
        replace.take_over(y, node.outputs[0])
        self._new[y] = node.outputs[0]
        self._idle.append(y)
        return node

    def _import(self, scope: scopes.Scope) -> None:
        scope.opset_imports[spec.DOMAIN] = spec.VERSION
        self._model.opset_imports[spec.DOMAIN] = spec.VERSION

    def _control_input(self, scope: scopes.Scope, name: str) -> ir.Value:
        """Return the model's switch of that name; in a function, whose inputs are its callers', a constant."""
        if not isinstance(scope, ir.Function):
            if name == controls.STEP:
                return controls.add_step(scope)
            return controls.add_training_mode(scope, self._training_mode)
        if (scope.graph, name) not in self._constants:
            array = np.array([-1], np.int64) if name == controls.STEP else np.array(self._training_mode)
            self._constants[scope.graph, name] = _constant(scope.graph, f"spatial_dropout/{name}", array)
        return self._constants[scope.graph, name]

    def _step_0(self, scope: scopes.Scope) -> ir.Value:
        graph = scope.graph if isinstance(scope, ir.Function) else scope
        if (graph, _STEP_0) not in self._constants:
            self._constants[graph, _STEP_0] = _constant(graph, f"spatial_dropout/{_STEP_0}", np.array([0], np.int64))
        return self._constants[graph, _STEP_0]


def _name_of(y: ir.Value) -> str:
    producer = y.producer()
    return (producer.name if producer is not None else "") or y.name or ""


def _constant(graph: ir.Graph, wanted: str, array: np.ndarray) -> ir.Value:
    taken = {value.name for value in graph.inputs} | {value.name for node in graph for value in node.outputs}
    name = next(name for name in (wanted, *(f"{wanted}_{n}" for n in range(2, len(taken) + 3))) if name not in taken)
    value = ir.Value(name=name, type=ir.TensorType(ir.tensor(array).dtype))
    attribute = ir.AttrTensor("value", ir.tensor(array, name=name))
    graph.insert_before(next(iter(graph)), ir.Node("", "Constant", [], [attribute], outputs=[value], name=name))
    return value


def names(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    """Return what reports call ``nodes``."""
    return tuple(node.name or op.describe(node) for node in nodes)
