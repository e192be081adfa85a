"""The nodes between draws and statistics in one file: all draws at once, or a Loop over chunks with running sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.montecarlo import drawing
from onnx_spatialdrop.montecarlo.accumulate import Accumulator, State
from onnx_spatialdrop.montecarlo.facts import Multiple
from onnx_spatialdrop.montecarlo.plan import Plan, nodes_within
from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["LEAST", "Chunking", "Counts", "is_double", "state_dims", "statistics"]


@dataclass(frozen=True)
class Chunking:
    """How many draws run at once.

    Attributes:
        draws: that many; 0: as many as there are.
        rows: as many as give this many rows; 0: not by rows.
        most_rows: LEAST draws where they give no more rows than these.
    """

    draws: int = 0
    rows: int = 0
    most_rows: int = 0

    @property
    def at_once(self) -> bool:
        """Whether all draws run at once, without a loop."""
        return not self.draws and not self.rows


#: Draws that run at once also where they exceed the cache: weights are read once for all of them.
LEAST: Final = 4


@dataclass(frozen=True)
class Counts:
    """Numbers of a run, as values.

    Attributes:
        samples: how many draws, int64 [1].
        first: the step of each row's first draw, int64 [N].
        rows: N, int64 [1].
    """

    samples: ir.Value
    first: ir.Value
    rows: ir.Value


def statistics(
    build: NodeBuilder, plan: Plan, targets: Sequence[Target], chunking: Chunking, counts: Counts
) -> list[dict[str, ir.Value]]:
    """Return the statistics of each target by name; the suffix's nodes become the builder's, or a Loop's."""
    ends = [_accumulator(plan, target, build) for target in targets]
    if chunking.at_once:
        start = build.constant(np.array([0], np.int64), "start")
        tiled = drawing.tile(build, plan, counts.first, start, counts.samples, counts.rows)
        build.nodes += drawing.attach_steps(plan, tiled, build.prefix)
        states = [_group(end, counts.samples) for end in ends]
    else:
        states = _loop(build, plan, ends, chunking, counts)
    results = []
    for end, state in zip(ends, states, strict=True):
        kind = ir.DataType.DOUBLE if is_double(plan, end.target) else ir.DataType.FLOAT
        total = build.add("Cast", counts.samples, role=f"{end.target.value.name}/samples", to=int(kind))
        results.append(end.finish(state, total))
    return results


def _accumulator(plan: Plan, target: Target, build: NodeBuilder) -> Accumulator:
    return Accumulator(target, build, plan.prepared.model.opset_imports.get("", 1), is_double(plan, target))


def _group(end: Accumulator, count: ir.Value) -> State:
    return end.group(end.draws(end.target.value, count), end.target.log_variance, count)


def is_double(plan: Plan, target: Target) -> bool:
    """Return whether sums are kept in double: where the output is."""
    return plan.facts[target.value].dtype == int(ir.DataType.DOUBLE)


@dataclass
class _Carried:
    """The state that a Loop carries: what it starts from, reads and makes, and its names afterwards."""

    initial: list[ir.Value]
    before: list[ir.Value]
    after: list[ir.Value]
    final: list[State]


def _loop(
    build: NodeBuilder, plan: Plan, ends: Sequence[Accumulator], chunking: Chunking, counts: Counts
) -> list[State]:
    """Return the states after a Loop over chunks of draws; the last chunk may be a smaller one."""
    size, trips = _trips(build, chunking, counts)
    inner = NodeBuilder(f"{build.prefix}/chunk", {})
    trip = ir.Value(name=f"{inner.prefix}/trip", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    going = ir.Value(name=f"{inner.prefix}/going", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    start = inner.add("Mul", trip, size, role="start")
    count = inner.add("Min", size, inner.add("Sub", counts.samples, start, role="left"), role="count")
    if plan.proven:
        replaced = drawing.tile(inner, plan, counts.first, start, count, counts.rows)
    else:
        replaced = drawing.untile(inner, plan, counts.first, start)
    inner.nodes += drawing.attach_steps(plan, replaced, inner.prefix)
    carried = _Carried([], [], [], [])
    for end in ends:
        _carry(carried, build, inner, plan, end, (start, count), counts.rows)
    still = inner.add("Identity", going, role="still_going")
    still.type, still.shape = going.type, going.shape
    inputs, outputs = [trip, going, *carried.before], [still, *carried.after]
    weights = _own_weights(plan)
    graph = ir.Graph(inputs, outputs, nodes=inner.nodes, initializers=weights, name=f"{build.prefix}/draws")
    made = [value for state in carried.final for value in state.values()]
    body = [ir.AttrGraph("body", graph)]
    build.nodes.append(
        ir.Node("", "Loop", [trips, None, *carried.initial], body, outputs=made, name=f"{build.prefix}/loop")
    )
    return carried.final


def _own_weights(plan: Plan) -> list[ir.Value]:
    """Take the weights that only the suffix reads out of the main graph, and return them.

    ONNX Runtime rearranges and fuses weights of the graph that it looks at alone, not those from outside.
    """
    outer = plan.prepared.model.graph
    members = {each for node in plan.suffix for each in nodes_within(node)}
    kept = [*plan.fixed, *plan.prepared.model.graph.inputs]
    own = [
        value
        for value in outer.initializers.values()
        if value not in kept and value.uses() and all(use.node in members for use in value.uses())
    ]
    for value in own:
        del outer.initializers[value.name or ""]
    return own


def _trips(build: NodeBuilder, chunking: Chunking, counts: Counts) -> tuple[ir.Value, ir.Value]:
    """Return how many draws run at once (int64 [1]), and how often."""
    one = build.constant(np.array([1], np.int64), "one")
    if chunking.draws:
        size = build.constant(np.array([chunking.draws], np.int64), "chunk")
    else:
        rows = build.constant(np.array([chunking.rows, chunking.most_rows], np.int64), "chunk_rows")
        fit = build.add("Div", rows, build.add("Max", counts.rows, one, role="some_rows"), role="chunk_fit")
        most = build.constant(np.array([2**31 - 1, LEAST], np.int64), "chunk_most")
        larger = build.add("ReduceMax", build.add("Min", fit, most, role="chunk_of"), role="chunk_larger", keepdims=1)
        size = build.add("Max", larger, one, role="chunk")
    up = build.add("Sub", build.add("Add", counts.samples, size, role="up_1"), one, role="up_2")
    return size, build.add("Squeeze", build.add("Div", up, size, role="trip_count"), role="trips")


def _carry(
    carried: _Carried,
    build: NodeBuilder,
    inner: NodeBuilder,
    plan: Plan,
    end: Accumulator,
    span: tuple[ir.Value, ir.Value],
    rows: ir.Value,
) -> None:
    """Add the state of one output to what the Loop carries."""
    target = end.target
    name, kind = target.value.name, ir.TensorType(ir.DataType.DOUBLE if is_double(plan, target) else ir.DataType.FLOAT)
    body = _accumulator(plan, target, inner)
    new = _group(body, span[1])
    old = {
        key: ir.Value(name=f"{inner.prefix}/{name}/{key}_before", type=kind, shape=_state_shape(plan, target, key))
        for key in end.keys
    }
    done, more = (
        inner.add("Cast", value, role=f"{name}/{role}", to=int(kind.dtype))
        for value, role in zip(span, ("done", "more"), strict=True)
    )
    state = body.merge(old, new, done, more)
    for key in end.keys:
        carried.initial.append(_zeros(build, plan, target, key, rows))
        carried.before.append(old[key])
        state[key].type, state[key].shape = kind, _state_shape(plan, target, key)
        carried.after.append(state[key])
    carried.final.append({key: ir.Value(name=f"{build.prefix}/{name}/{key}") for key in end.keys})


def state_dims(plan: Plan, target: Target, key: str) -> list[int | None] | None:
    """Return the sizes of a carried state, None for N; None where they are not all known."""
    fact = plan.facts[target.value]
    if fact.mixed or fact.dims is None:
        return None
    dims: list[int | None] = []
    for index, dim in enumerate(fact.dims):
        if isinstance(dim, int):
            dims.append(dim)
        elif isinstance(dim, Multiple) and dim.times == 1 and index == 0:
            dims.append(None)
        else:
            return None
    if key == "divergence" and target.axis >= 0:
        del dims[target.axis]
    return dims


def _state_shape(plan: Plan, target: Target, key: str) -> ir.Shape | None:
    dims = state_dims(plan, target, key)
    return None if dims is None else ir.Shape(["state_rows" if dim is None else dim for dim in dims])


def _zeros(build: NodeBuilder, plan: Plan, target: Target, key: str, rows: ir.Value) -> ir.Value:
    """Return the state of no draws; a scalar, which is broadcast, where its sizes are not known."""
    role = f"{target.value.name}/{key}"
    zero = build.constant(np.array(0, np.float64 if is_double(plan, target) else np.float32), f"{role}_zero")
    dims = state_dims(plan, target, key)
    if dims is None:
        return zero
    parts = [
        rows if dim is None else build.constant(np.array([dim], np.int64), f"{role}_size_{index}")
        for index, dim in enumerate(dims)
    ]
    return build.add("Expand", zero, build.add("Concat", *parts, role=f"{role}_sizes", axis=0), role=f"{role}_none")
