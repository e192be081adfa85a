"""Cut a prepared model in two: what is the same for every draw, and what follows from a draw.

It finds the cut, the values that cross it, and whether the second part may run on many draws at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import onnx_ir as ir
import onnx_ir.passes.common

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo.facts import Fact, Multiple, from_type
from onnx_spatialdrop.montecarlo.prepare import Prepared, is_stochastic_source
from onnx_spatialdrop.montecarlo.rows import Tracker
from onnx_spatialdrop.operator import node as op

__all__ = ["Plan", "copied", "input_fact", "nodes_within", "plan", "reads"]


@dataclass(frozen=True)
class Plan:
    """A model that is cut in two.

    Attributes:
        prepared: the model.
        batch: the input whose first size is the number of samples N.
        prefix: nodes of the main graph that are the same for every draw, but for constants.
        suffix: nodes of the main graph that follow from a draw.
        boundary: values of the prefix, inputs among them, that the suffix reads.
        facts: what is known of every value of the main graph.
        stochastic: outputs of the graph that differ from draw to draw.
        fixed: its other outputs.
        ends: why the suffix cannot run on several draws at once; "" where it is proven that it can.
        per_sample: the live nodes that take a step a sample; the others draw one mask for the whole batch.
        meets: where samples may meet, in the prefix too, so that a sample's outputs would depend on those beside it; ""
            where it is proven that they do nowhere.
    """

    prepared: Prepared
    batch: ir.Value
    prefix: list[ir.Node]
    suffix: list[ir.Node]
    boundary: list[ir.Value]
    facts: dict[ir.Value, Fact]
    stochastic: list[ir.Value]
    fixed: list[ir.Value]
    ends: str = ""
    per_sample: frozenset[ir.Node] = field(default_factory=frozenset)
    meets: str = ""

    @property
    def strata(self) -> int:
        """How many draws in a row are balanced against each other; 1 where they are independent."""
        return math.lcm(*(op.read(node).strata for node in self.prepared.live))

    @property
    def proven(self) -> bool:
        """Whether draws may be laid behind each other in the batch."""
        return not self.ends


def nodes_within(node: ir.Node) -> Iterator[ir.Node]:
    """Yield a node and all nodes of the graphs in it."""
    yield node
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph().all_nodes()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                yield from graph.all_nodes()


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, the graphs in it included."""
    for each in nodes_within(node):
        yield from (value for value in each.inputs if value is not None)
        for attribute in each.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from attribute.as_graph().outputs


def plan(prepared: Prepared) -> Plan:
    """Cut a model.

    1. Live dropout, noise of the runtime, and all that follows from these or from ``step`` is the suffix.
    2. What follows from constants alone belongs to neither, and is no boundary.
    3. The batch is the first size of the first input that has to be fed. Sizes of that name are the same number; where
       it has no name, so is the first size of every input that has none either.
    4. Draws may run at once where every value that crosses has its samples along one axis, or none, and each node of
       the suffix treats samples one by one (see rows.py), up to outputs with the samples along axis 0.

    Raises:
        SpecError: no input has a batch, or no output follows from a draw.
    """
    graph = prepared.model.graph
    live = frozenset(prepared.live)
    constant: set[ir.Value] = set()
    drawn: set[ir.Value] = {prepared.step}
    prefix: list[ir.Node] = []
    suffix: list[ir.Node] = []
    for node in graph:
        sources = list(reads(node))
        random = any(is_stochastic_source(each, live) for each in nodes_within(node))
        if random or any(value in drawn for value in sources):
            suffix.append(node)
            drawn.update(node.outputs)
            continue
        prefix.append(node)
        if (not node.inputs and node.op_type == "Constant") or all(_is_constant(v, constant) for v in sources):
            constant.update(node.outputs)
    crossing: dict[ir.Value, None] = {}
    own = {value for node in graph for value in node.outputs} | set(graph.inputs)
    for node in suffix:
        for value in reads(node):
            if value in own and value not in drawn and not _is_constant(value, constant):
                crossing[value] = None
    _complete_types(prepared.model, list(crossing))
    stochastic = [value for value in graph.outputs if value in drawn]
    if not stochastic:
        raise SpecError("no output follows from the live dropout, so that all draws would be equal")
    batch = _batch(prepared)
    tracker = Tracker(prepared.model.opset_imports)
    _name_inputs(tracker, prepared, batch)
    ends, meets = _prove(tracker, graph, suffix, list(crossing), stochastic)
    per_sample = frozenset(node for node in live if _by_sample(tracker, node, batch))
    return Plan(
        prepared,
        batch,
        prefix,
        suffix,
        list(crossing),
        tracker.known,
        stochastic,
        [value for value in graph.outputs if value not in drawn],
        ends,
        per_sample,
        meets,
    )


def _complete_types(model: ir.Model, values: list[ir.Value]) -> None:
    """Give values the types that onnx infers, where the file gives them none."""
    if all(value.type is not None for value in values):
        return
    inferred = model.clone()
    ir.passes.common.ShapeInferencePass()(inferred)
    known = {value.name: value for node in inferred.graph for value in node.outputs}
    for value in values:
        if value.type is None and value.name in known:
            value.type = known[value.name].type


def _is_constant(value: ir.Value, constant: set[ir.Value]) -> bool:
    return value in constant or (value.const_value is not None and not value.is_graph_input())


def _batch(prepared: Prepared) -> ir.Value:
    for value in prepared.model.graph.inputs:
        fed = value is not prepared.step and value.const_value is None
        if fed and (value.shape is None or len(value.shape) > 0):
            return value
    raise SpecError("the model has no input with a batch: none that has to be fed has any dimensions")


def input_fact(value: ir.Value) -> Fact:
    """Return what an input's declaration says."""
    if value.type is None:
        return Fact()
    return from_type(ir.to_proto(value).type)


def _name_inputs(tracker: Tracker, prepared: Prepared, batch: ir.Value) -> None:
    """Say where the samples of the inputs are (case 3)."""
    first = input_fact(batch).dims
    name = first[0] if first else None
    for value in prepared.model.graph.inputs:
        if value is prepared.step:
            tracker.known[value] = Fact(int(ir.DataType.INT64), (Multiple(1),), 0)
            continue
        fact = input_fact(value)
        if fact.dims is not None and not isinstance(name, int):
            dims = tuple(Multiple(1) if name is not None and dim == name else dim for dim in fact.dims)
            if value is batch or (dims and dims[0] is None and name is None and value.const_value is None):
                dims = (Multiple(1), *dims[1:])
            at = [index for index, dim in enumerate(dims) if isinstance(dim, Multiple)]
            reason = "two of its sizes are the number of samples" if len(at) > 1 else ""
            fact = Fact(fact.dtype, dims, at[0] if len(at) == 1 else None, mixed=reason)
        tracker.known[value] = fact


def _prove(
    tracker: Tracker, graph: ir.Graph, suffix: list[ir.Node], crossing: list[ir.Value], stochastic: list[ir.Value]
) -> tuple[str, str]:
    """Return Plan's ``ends`` and ``meets``."""
    members = set(suffix)
    ends = meets = ""
    for node in graph:
        reason = tracker.step(node, stochastic=node in members)
        if reason and not (meets and ends):
            said = f"{op.describe(node)} ({node.op_type}): {reason}"
            meets = meets or said
            ends = ends or (said if node in members else "")
    for value in crossing:
        if tracker.of(value).mixed and not ends:
            ends = f"where the samples are in {value.name!r} is not known: {tracker.of(value).mixed}"
    for value in stochastic:
        fact = tracker.of(value)
        if not ends and (fact.mixed or fact.axis != 0):
            ends = f"output {value.name!r}: the samples are not along axis 0"
    for value in (*graph.inputs, *graph.outputs):
        fact = tracker.of(value)
        if not meets and (fact.mixed or (fact.axis, fact.block) != (0, 1)):
            meets = f"{value.name!r}: a sample is not an entry along axis 0"
    return ends, meets


def _by_sample(tracker: Tracker, node: ir.Node, batch: ir.Value) -> bool:
    x = node.inputs[0]
    fact = None if x is None else tracker.of(x)
    if fact is None or fact.mixed or not fact.dims:
        return False
    shared = {axis % len(fact.dims) for axis in op.read(node).axes}
    first = None if batch.shape is None else batch.shape[0]
    return 0 not in shared and (fact.dims[0] == Multiple(1) or (isinstance(first, int) and fact.dims[0] == first))


def copied(original: Plan) -> Plan:
    """Return a plan of a copy of the model, for whoever changes the model; weights are shared."""
    model = original.prepared.model.clone()
    old, new = original.prepared.model.graph, model.graph
    values = dict(zip(old.inputs, new.inputs, strict=True))
    nodes: dict[ir.Node, ir.Node] = {}
    for one, two in zip(old.all_nodes(), new.all_nodes(), strict=True):
        nodes[one] = two
        values.update(zip(one.outputs, two.outputs, strict=True))
    prepared = replace(
        original.prepared,
        model=model,
        step=values[original.prepared.step],
        live=[nodes[node] for node in original.prepared.live],
    )
    return Plan(
        prepared,
        values[original.batch],
        [nodes[node] for node in original.prefix],
        [nodes[node] for node in original.suffix],
        [values[value] for value in original.boundary],
        {values[value]: fact for value, fact in original.facts.items() if value in values},
        [values[value] for value in original.stochastic],
        [values[value] for value in original.fixed],
        original.ends,
        frozenset(nodes[node] for node in original.per_sample),
        original.meets,
    )
