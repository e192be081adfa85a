"""The two halves of a model as models of their own: what runs once, and what runs for a chunk of draws.

The second carries running statistics in and out, so that nobody has to hold draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.montecarlo import drawing
from onnx_spatialdrop.montecarlo.accumulate import Accumulator, State
from onnx_spatialdrop.montecarlo.facts import shape_of
from onnx_spatialdrop.montecarlo.needed import keep_needed
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["ChunkModel", "chunk_model", "prefix_model", "suffix_model"]


@dataclass(frozen=True)
class ChunkModel:
    """The model of a chunk of draws.

    Attributes:
        model: takes the boundary values, ``first``, ``start``, ``count`` and states; returns states and draws.
        first: name of the input of first steps, int64 [N].
        start: name of the input of the number of draws before, int64 [1].
        count: name of the input of the number of draws, int64 [1].
        before: names of the inputs that carry states, by output and key. A scalar 0 is the state of no draws.
        after: names of the outputs that carry states.
        draws: name of the output of draws [count, N, ...], by output.
    """

    model: ir.Model
    first: str
    start: str
    count: str
    before: dict[str, dict[str, str]]
    after: dict[str, dict[str, str]]
    draws: dict[str, str]


def prefix_model(plan: Plan) -> ir.Model:
    """Return the model of what is the same for every draw; its outputs are the boundary values and fixed outputs."""
    model = plan.prepared.model.clone()
    values = _twins(plan.prepared.model.graph, model.graph)
    inputs = set(plan.prepared.model.graph.inputs)
    wanted = dict.fromkeys([*(v for v in plan.boundary if v not in inputs), *plan.fixed])
    for value in wanted:
        values[value].type = values[value].type or _type(plan, value)
        if values[value].shape is None:
            values[value].shape = shape_of(plan.facts[value])
    model.graph.outputs[:] = [values[value] for value in wanted]
    step = values[plan.prepared.step]
    keep_needed(model.graph)
    model.graph.inputs.remove(step)
    return model


def suffix_model(plan: Plan) -> ir.Model:
    """Return the model of what follows from a draw, for one draw of N rows; it takes ``step``, int64 [N].

    It changes the plan's model, which must not be used any more.
    """
    model, graph = plan.prepared.model, plan.prepared.model.graph
    inputs = _boundary_inputs(plan)
    prefix = Names(model).prefix("monte_carlo")
    declared = [value.shape for value in plan.stochastic]
    nodes = drawing.attach_steps(plan, inputs, prefix)
    for value, shape in zip(plan.stochastic, declared, strict=True):
        value.shape = shape
    graph.remove(plan.suffix)
    graph.extend(nodes)
    graph.outputs[:] = plan.stochastic
    graph.inputs[:] = [*inputs.values(), plan.prepared.step]
    keep_needed(graph)
    return model


def chunk_model(plan: Plan, targets: list[Target]) -> ChunkModel:
    """Return the model of a chunk of draws. It changes the plan's model, which must not be used any more."""
    model, graph = plan.prepared.model, plan.prepared.model.graph
    prefix = Names(model).prefix("monte_carlo")
    build = NodeBuilder(prefix, {})
    first, start, count = (
        _integers(f"{prefix}/{name}", size) for name, size in (("first", "rows"), ("start", 1), ("count", 1))
    )
    graph.remove(plan.suffix)
    inputs = _boundary_inputs(plan)
    rows = build.add("Shape", first, role="rows")
    if plan.proven:
        tiled = drawing.tile(build, plan, first, start, count, rows, inputs)
    else:
        tiled = drawing.untile(build, plan, first, start) | inputs
    build.nodes += drawing.attach_steps(plan, tiled, prefix)
    before: dict[str, dict[str, str]] = {}
    after: dict[str, dict[str, str]] = {}
    drawn: dict[str, str] = {}
    states: list[ir.Value] = []
    outputs: list[ir.Value] = []
    for target in targets:
        name = target.value.name or ""
        double = plan.facts[target.value].dtype == int(ir.DataType.DOUBLE)
        kind = ir.TensorType(ir.DataType.DOUBLE if double else ir.DataType.FLOAT)
        sums = Accumulator(target, build, model.opset_imports.get("", 1), double)
        draws = sums.draws(target.value, count)
        new = sums.group(draws, target.log_variance, count)
        old: State = {key: ir.Value(name=f"{prefix}/{name}/{key}_before", type=kind) for key in sums.keys}
        done, more = (
            build.add("Cast", v, role=f"{name}/{r}", to=int(kind.dtype)) for v, r in ((start, "done"), (count, "more"))
        )
        merged = sums.merge(old, new, done, more)
        for value in (*merged.values(), draws.p):
            value.type = kind
        before[name] = {key: value.name or "" for key, value in old.items()}
        after[name] = {key: value.name or "" for key, value in merged.items()}
        drawn[name] = draws.p.name or ""
        states += old.values()
        outputs += [*merged.values(), draws.p]
    graph.extend(build.nodes)
    graph.outputs[:] = outputs
    graph.inputs[:] = [*inputs.values(), first, start, count, *states]
    keep_needed(graph)
    return ChunkModel(model, first.name or "", start.name or "", count.name or "", before, after, drawn)


def _integers(name: str, size: int | str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([size]))


def _boundary_inputs(plan: Plan) -> dict[ir.Value, ir.Value]:
    """Return an input for each boundary value, of its name; inputs of the model are their own."""
    graph = plan.prepared.model.graph
    own = set(graph.inputs)
    return {value: value if value in own else _input(plan, value) for value in plan.boundary}


def _input(plan: Plan, value: ir.Value) -> ir.Value:
    shape = shape_of(plan.facts[value]) if value.shape is None else value.shape
    return ir.Value(name=value.name, type=value.type or _type(plan, value), shape=shape)


def _type(plan: Plan, value: ir.Value) -> ir.TypeProtocol | None:
    dtype = plan.facts[value].dtype
    return ir.TensorType(ir.DataType(dtype)) if dtype else None


def _twins(old: ir.Graph, new: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Return the values of a clone by those of the original, for the main graph."""
    twins = dict(zip(old.inputs, new.inputs, strict=True))
    for one, two in zip(old, new, strict=True):
        twins.update(zip(one.outputs, two.outputs, strict=True))
    return twins
