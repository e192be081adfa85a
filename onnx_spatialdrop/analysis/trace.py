"""Follow one draw forward through a graph, as far as its values keep a form that dropout is made of.

The graph is read only. What a value is follows from the ops' definitions alone; names play no part.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_spatialdrop.analysis import algebra
from onnx_spatialdrop.analysis.operands import Context, Operands
from onnx_spatialdrop.analysis.sources import Source
from onnx_spatialdrop.analysis.values import AbstractValue, NotRepresentableError, TwoValued
from onnx_spatialdrop.graph.constants import MALFORMED
from onnx_spatialdrop.operator.node import describe

__all__ = ["Trace", "Use", "follow"]


@dataclass(frozen=True)
class Use:
    """A use of a value where its form ends: the node that uses it, None for a graph output, and why it ends."""

    value: ir.Value
    node: ir.Node | None
    reason: str


@dataclass
class Trace:
    """Everything that one draw reaches.

    Attributes:
        source: the random node.
        forms: what each value that depends on the draw is, in the order of the graph.
        nodes: the nodes that compute those values, the random node first.
        ends: where masks (or the draw itself) go without becoming a product.
        products: the values x * mask that the rest of the graph reads, with their forms.
    """

    source: Source
    forms: dict[ir.Value, AbstractValue] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)
    ends: list[Use] = field(default_factory=list)
    products: dict[ir.Value, TwoValued] = field(default_factory=dict)


def follow(
    source: Source, context: Context, position: dict[ir.Node, int], proven: Callable[[ir.Value, TwoValued], bool]
) -> Trace:
    """Return what the draw of ``source`` reaches.

    Args:
        source: a random node that has forms.
        context: what is known of other values.
        position: each node's place in the order of the file.
        proven: whether a product is dropout already; such a product is followed only into nodes that also read
            something else of this draw (TensorFlow's SelectV2 comes out as kept * x + dropped * 0).
    """
    trace = Trace(source, dict(source.forms), [source.node])
    reached = Operands(trace.forms, context)
    heap: list[tuple[int, int]] = []
    waiting: dict[int, ir.Node] = {}
    beside: list[ir.Node] = []

    def push(value: ir.Value) -> None:
        for consumer, _ in value.uses():
            place = position[consumer]
            if place not in waiting:
                waiting[place] = consumer
                heapq.heappush(heap, (place, place))

    for value in source.forms:
        push(value)
    while heap:
        node = waiting[heapq.heappop(heap)[0]]
        if all(_reads_type_only(node, index) for index, value in enumerate(node.inputs) if value in trace.forms):
            beside.append(node)
            continue
        derived = list(dict.fromkeys(value for value in node.inputs if value in trace.forms))
        reason = _why_not(node, derived, trace, proven, context)
        if not reason:
            try:
                form = algebra.evaluate(node, reached)
            except NotRepresentableError as error:
                reason = str(error)
            except MALFORMED:
                reason = f"{describe(node)} is no valid {node.op_type} node"
            else:
                if _undoes(form, derived, trace, proven):
                    for value in derived:
                        _end(trace, Use(value, node, ""))
                    continue
                trace.forms[node.outputs[0]] = form
                trace.nodes.append(node)
                push(node.outputs[0])
                continue
        for value in derived:
            _end(trace, Use(value, node, reason))
    inner = {*trace.nodes, *beside}
    for node in beside:
        value = next(value for value in node.inputs if value in trace.forms)
        form = trace.forms[value]
        product = isinstance(form, TwoValued) and form.x is not None
        if product or not all(_stays_inside(output, inner) for output in node.outputs):
            _end(trace, Use(value, node, f"its type or shape is read by {describe(node)} ({node.op_type})"))
    for value in trace.forms:
        if value.is_graph_output():
            _end(trace, Use(value, None, "it is an output of the graph"))
    return trace


def _reads_type_only(node: ir.Node, index: int) -> bool:
    return (node.op_type == "CastLike" and index == 1) or node.op_type == "Shape"


def _stays_inside(value: ir.Value, inner: set[ir.Node], depth: int = 8) -> bool:
    """Return whether everything computed from ``value`` ends in nodes of the pattern itself."""
    if value.is_graph_output() or depth == 0:
        return False
    return all(
        use.node in inner or all(_stays_inside(output, inner, depth - 1) for output in use.node.outputs)
        for use in value.uses()
    )


def _why_not(
    node: ir.Node,
    derived: list[ir.Value],
    trace: Trace,
    proven: Callable[[ir.Value, TwoValued], bool],
    context: Context,
) -> str:
    if not context.runs_with(node, trace.source.node):
        return f"a subgraph reads it ({node.op_type})"
    switched = node.op_type == "Where" and context.constants.switches(node.inputs[0])
    if len(derived) == 1 and not switched:
        form = trace.forms[derived[0]]
        if isinstance(form, TwoValued) and form.x is not None and proven(derived[0], form):
            return "it is dropout already"
    return ""


def _undoes(
    form: AbstractValue, derived: list[ir.Value], trace: Trace, proven: Callable[[ir.Value, TwoValued], bool]
) -> bool:
    """Return whether dropouts of one mask are combined into what is none itself, such as their difference."""
    parts = [(value, trace.forms[value]) for value in derived]
    if len(parts) < 2 or not isinstance(form, TwoValued) or form.x is None or proven(derived[0], form):
        return False
    return all(isinstance(part, TwoValued) and part.x is not None and proven(value, part) for value, part in parts)


def _end(trace: Trace, use: Use) -> None:
    form = trace.forms[use.value]
    if isinstance(form, TwoValued) and form.x is not None:
        trace.products[use.value] = form
    else:
        trace.ends.append(use)
