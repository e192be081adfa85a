"""Take back transpositions that an exporter could not cancel because dropout stood between them.

tf2onnx moves the transpositions of channels-last networks through element-wise nodes until they meet and vanish, but
not through the nodes that a dropout is spelled out in. Here the same is done for what was around a removed dropout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_spatialdrop.graph import prune, replace
from onnx_spatialdrop.graph.constants import array_of
from onnx_spatialdrop.graph.rearrange import (
    Order,
    can_rearrange,
    is_carried,
    is_sink,
    rearrange,
    rearranged_shape,
    undo,
)

__all__ = ["cancel_transposes"]


@dataclass
class _Region:
    """Connected nodes that compute the same in any order of axes, and what is around them.

    Attributes:
        nodes: the nodes.
        inputs: values from outside that are no constants.
        outputs: values of the region that something outside reads, or that the graph returns.
    """

    nodes: dict[ir.Node, None] = field(default_factory=dict)
    inputs: dict[ir.Value, None] = field(default_factory=dict)
    outputs: dict[ir.Value, None] = field(default_factory=dict)


def cancel_transposes(model: ir.Model, values: Iterable[ir.Value], opset: int) -> list[ir.Value]:
    """Rearrange the nodes around each of ``values`` where that leaves fewer transpositions, in place.

    1. The region of a value is what is connected to it through nodes that do not care for the order of axes, or whose
       axes can be renamed: element-wise ops, Concat, Pad, Slice, reductions.
    2. Where transpositions of one order lead into it, the whole region may work in the order before them. Those
       transpositions go, and so do those that lead out and undo them; every other border gets one.
    3. That is done where it makes the transpositions fewer, and nowhere else. Constants are rearranged.

    Returns the results of the transpositions that lead out of what was rearranged.
    """
    seen: set[ir.Node] = set()
    left: list[ir.Value] = []
    for value in values:
        region = _grow(model.graph, value, opset, seen)
        orders = Counter(order for order in map(_order_into, region.inputs) if order is not None)
        for order, _ in orders.most_common():
            if _gain(region, order) > 0:
                _settle(model, region, order)
                nodes = (use.node for output in region.outputs for use in output.uses())
                left += [node.outputs[0] for node in nodes if _order(node) is not None]
                break
    return left


def _around(value: ir.Value) -> list[ir.Node]:
    producer = value.producer()
    return [*(use.node for use in value.uses()), *([] if producer is None else [producer])]


def _order(node: ir.Node | None) -> Order | None:
    if node is None or node.op_type != "Transpose" or node.domain != "":
        return None
    return tuple(node.attributes.get_ints("perm", ())) or None


def _order_into(value: ir.Value) -> Order | None:
    return _order(value.producer())


def _grow(graph: ir.Graph, value: ir.Value, opset: int, seen: set[ir.Node]) -> _Region:
    region = _Region()
    stack = _around(value)
    while stack:
        node = stack.pop()
        if node in seen or node.graph is not graph or not is_carried(node, opset):
            continue
        seen.add(node)
        region.nodes[node] = None
        for operand in node.inputs:
            producer = None if operand is None else operand.producer()
            if producer is not None:
                stack.append(producer)
        stack += [use.node for output in node.outputs for use in output.uses()]
    for node in region.nodes:
        for operand in node.inputs:
            if operand is not None and operand.producer() not in region.nodes and array_of(operand) is None:
                region.inputs[operand] = None
        for output in node.outputs:
            if output.is_graph_output() or any(use.node not in region.nodes for use in output.uses()):
                region.outputs[output] = None
    return region


def _gain(region: _Region, order: Order) -> int:
    """Return how many transpositions fewer there would be; at most 0 where the region cannot be rearranged."""
    if not all(can_rearrange(node, order) for node in region.nodes):
        return 0
    gain = 0
    for value in region.inputs:
        node = value.producer()
        if _order(node) == order:
            gain += not value.is_graph_output() and all(use.node in region.nodes for use in value.uses())
        elif value.shape is None or len(value.shape) != len(order):
            return 0
        else:
            gain -= not any(_order(use.node) == undo(order) for use in value.uses())
    for value in region.outputs:
        outside = [use.node for use in value.uses() if use.node not in region.nodes]
        if any(node.graph is not value.graph for node in outside):
            return 0
        undoing = [node for node in outside if _order(node) == undo(order)]
        gain += sum(not node.outputs[0].is_graph_output() for node in undoing)
        gain -= value.is_graph_output() or any(not _takes_any(node, order) for node in outside)
    return gain


def _takes_any(node: ir.Node, order: Order) -> bool:
    return _order(node) is not None or is_sink(node, order)


def _settle(model: ir.Model, region: _Region, order: Order) -> None:
    graph = model.graph
    idle: list[ir.Value | None] = []
    # Before anything is led out: what reads a value where the order is undone gives it the right shape.
    shapes = {out: rearranged_shape(out.shape, undo(order)) for node in region.nodes for out in node.outputs}
    for value in region.outputs:
        idle += _lead_out(graph, value, region, order)
    for value in region.inputs:
        source = _before(graph, value, order)
        for use in list(value.uses()):
            if use.node in region.nodes:
                use.node.replace_input_with(use.idx, source)
        idle.append(value)
    for node in region.nodes:
        idle += rearrange(graph, node, order)
        for output in node.outputs:
            if not output.is_graph_output():  # one that became so has the shape that the graph declares
                output.shape = shapes[output] or output.shape
    prune.prune_unused(model, idle)


def _before(graph: ir.Graph, value: ir.Value, order: Order) -> ir.Value:
    """Return what ``value`` is when its axes stand as they stood before a transposition by ``order``."""
    node = value.producer()
    if _order(node) == order:
        assert node is not None
        assert node.inputs[0] is not None
        return node.inputs[0]
    made = _transpose(value, undo(order), f"{value.name}/rearranged")
    if node is None:
        graph.insert_before(graph[0], made)
    else:
        graph.insert_after(node, made)
    for use in list(value.uses()):
        if use.node is not made and _order(use.node) == undo(order):
            replace.bypass(use.node, made.outputs[0])
    return made.outputs[0]


def _transpose(value: ir.Value, order: Order, name: str) -> ir.Node:
    output = ir.Value(name=name, type=value.type, shape=rearranged_shape(value.shape, order))
    return ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", order)], outputs=[output], name=name)


def _lead_out(graph: ir.Graph, value: ir.Value, region: _Region, order: Order) -> list[ir.Value | None]:
    """Let what is outside of the region read ``value`` as it was, though its axes are about to be rearranged."""
    idle: list[ir.Value | None] = []
    outside = [use for use in value.uses() if use.node not in region.nodes]
    plain = [use for use in outside if not _takes_any(use.node, order)]
    producer = value.producer()
    assert producer is not None
    if plain or value.is_graph_output():
        made = _transpose(value, order, f"{value.name}/rearranged")
        graph.insert_after(producer, made)
        output = made.outputs[0]
        for use in plain:
            use.node.replace_input_with(use.idx, output)
        if value.is_graph_output():
            inner = [use for use in value.uses() if use.node is not made]
            replace.take_over(value, output)
            made.replace_input_with(0, value)
            for use in inner:
                use.node.replace_input_with(use.idx, value)
            value.name = f"{output.name}/rearranged"
        output.shape = value.shape
    for use in outside:
        given = _order(use.node)
        if given is None:
            idle += rearrange(graph, use.node, order) if is_sink(use.node, order) else []
        elif given == undo(order):
            replace.bypass(use.node, value)
        else:
            use.node.attributes["perm"] = ir.AttrInt64s("perm", [order[axis] for axis in given])
    return idle
