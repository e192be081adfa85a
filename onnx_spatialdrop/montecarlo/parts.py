"""The parts of a model as models of their own: what runs once, what runs for draws, and that with running sums.

The last two take draws laid behind each other: boundary values and steps of T N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.montecarlo import drawing
from onnx_spatialdrop.montecarlo.accumulate import Accumulator, State
from onnx_spatialdrop.montecarlo.facts import shape_of
from onnx_spatialdrop.montecarlo.needed import keep_needed
from onnx_spatialdrop.montecarlo.plan import Plan, copied
from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["SumsModel", "prefix_model", "suffix_model", "sums_model"]


@dataclass(frozen=True)
class SumsModel:
    """The model of a few draws with running sums.

    Attributes:
        model: takes the boundary values, ``step``, and what is named below; returns states.
        done: name of the input of the number of draws before, int64 [1].
        count: name of the input of the number of draws, int64 [1].
        before: names of the inputs that carry states, by output and key. A scalar 0 is the state of no draws.
        after: names of the outputs that carry states.
    """

    model: ir.Model
    done: str
    count: str
    before: dict[str, dict[str, str]]
    after: dict[str, dict[str, str]]


def prefix_model(plan: Plan) -> ir.Model:
    """Return the model of what is the same for every draw; its outputs are the boundary values and fixed outputs."""
    own = copied(plan)
    graph, inputs = own.prepared.model.graph, set(own.prepared.model.graph.inputs)
    wanted = list(dict.fromkeys([*(value for value in own.boundary if value not in inputs), *own.fixed]))
    for value in wanted:
        _declare(own, value)
    graph.outputs[:] = wanted
    keep_needed(graph)
    graph.inputs.remove(own.prepared.step)
    return own.prepared.model


def suffix_model(plan: Plan) -> ir.Model:
    """Return the model of what follows from draws; it takes ``step``, int64 [N]."""
    own = copied(plan)
    graph = own.prepared.model.graph
    declared = [value.shape for value in own.stochastic]
    inputs = _begin(own)
    for value, shape in zip(own.stochastic, declared, strict=True):
        value.shape = shape
    graph.outputs[:] = own.stochastic
    graph.inputs[:] = [*inputs, own.prepared.step]
    keep_needed(graph)
    return own.prepared.model


def sums_model(plan: Plan, names: Sequence[Target]) -> SumsModel:
    """Return the model of a few draws with running sums, for the outputs that ``names`` says."""
    own = copied(plan)
    model, graph = own.prepared.model, own.prepared.model.graph
    targets = _targets(plan, own, names)
    prefix = Names(model).prefix("monte_carlo")
    build = NodeBuilder(prefix, {})
    done, count = (
        ir.Value(name=f"{prefix}/{name}", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
        for name in ("done", "count")
    )
    inputs = _begin(own)
    before: dict[str, dict[str, str]] = {}
    after: dict[str, dict[str, str]] = {}
    carried: list[ir.Value] = []
    outputs: list[ir.Value] = []
    for target in targets:
        name = target.value.name or ""
        double = own.facts[target.value].dtype == int(ir.DataType.DOUBLE)
        kind = ir.TensorType(ir.DataType.DOUBLE if double else ir.DataType.FLOAT)
        sums = Accumulator(target, build, model.opset_imports.get("", 1), double)
        new = sums.group(sums.draws(target.value, count), target.log_variance, count)
        old: State = {key: ir.Value(name=f"{prefix}/{name}/{key}_before", type=kind) for key in sums.keys}
        so_far, more = (
            build.add("Cast", value, role=f"{name}/{role}", to=int(kind.dtype))
            for value, role in ((done, "so_far"), (count, "more"))
        )
        merged = sums.merge(old, new, so_far, more)
        for value in merged.values():
            value.type = kind
        before[name] = {key: value.name or "" for key, value in old.items()}
        after[name] = {key: value.name or "" for key, value in merged.items()}
        carried += old.values()
        outputs += merged.values()
    graph.extend(build.nodes)
    graph.outputs[:] = outputs
    graph.inputs[:] = [*inputs, own.prepared.step, done, count, *carried]
    keep_needed(graph)
    return SumsModel(model, done.name or "", count.name or "", before, after)


def _targets(plan: Plan, own: Plan, targets: Sequence[Target]) -> list[Target]:
    """Return the targets with the values of a copied plan."""
    twins = dict(zip(plan.stochastic, own.stochastic, strict=True))
    return [
        target.of(twins[target.value], None if target.log_variance is None else twins[target.log_variance])
        for target in targets
    ]


def _begin(plan: Plan) -> list[ir.Value]:
    """Let the suffix read inputs in place of its boundary values; return them."""
    graph = plan.prepared.model.graph
    own = set(graph.inputs)
    inputs = {value: value if value in own else _input(plan, value) for value in plan.boundary}
    nodes = drawing.attach_steps(plan, inputs, Names(plan.prepared.model).prefix("monte_carlo"))
    graph.remove(plan.suffix)
    graph.extend(nodes)
    return list(inputs.values())


def _declare(plan: Plan, value: ir.Value) -> None:
    """Give a value type and sizes, where it has none."""
    dtype = plan.facts[value].dtype
    if value.type is None and dtype:
        value.type = ir.TensorType(ir.DataType(dtype))
    if value.shape is None:
        value.shape = shape_of(plan.facts[value])


def _input(plan: Plan, value: ir.Value) -> ir.Value:
    """Return an input in place of a value; the sizes that the file gives it may be those of another batch."""
    _declare(plan, value)
    told = None if value.shape is None else ir.Shape([None] * len(value.shape))
    return ir.Value(name=value.name, type=value.type, shape=shape_of(plan.facts[value]) or told)
