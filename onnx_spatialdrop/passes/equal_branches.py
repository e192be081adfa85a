"""Take an If away whose branches compute the same, in an ir.Model: a switch that has nothing left to switch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import prune, replace, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator.node import is_spatial_dropout
from onnx_spatialdrop.passes.training_forms import DROPOUT, may_be_random

__all__ = ["merge_equal_branches"]

#: Attributes that are equal to none.
_HELD: Final = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.TENSORS)


def merge_equal_branches(model: ir.Model, touched: Iterable[ir.Graph | ir.Function]) -> int:
    """Put the nodes of a branch in the place of an If where both branches compute the same, in place.

    1. Only Ifs are looked at one of whose branches, or a graph inside one, is ``touched``; the inner ones first.
    2. Branches compute the same where the same operators with equal attributes get there from the same outer values
       and equal constants. Nodes that draw, and such as hold subgraphs, are equal to none.
    3. The condition goes, where nothing else reads it, with what computed only that.

    Returns how many Ifs went.
    """
    merged = 0
    for node in _holders(model, touched):
        branches = [node.attributes[key].as_graph() for key in ("then_branch", "else_branch") if key in node.attributes]
        if node.graph is None or len(branches) != 2 or len(branches[0].outputs) != len(node.outputs):
            continue
        if _are_equal(*branches):
            condition = node.inputs[0]
            _move_out(model, node, branches[0])
            prune.prune_unused(model, [condition])
            merged += 1
    return merged


def _holders(model: ir.Model, touched: Iterable[ir.Graph | ir.Function]) -> list[ir.Node]:
    """Return the Ifs around some graphs, the inner ones first."""
    holders: dict[object, ir.Node] = {}
    for node in scopes.all_nodes(model):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                holders[attribute.as_graph()] = node
    depths: dict[ir.Node, int] = {}
    for graph in dict.fromkeys(touched):
        around, holder = list[ir.Node](), holders.get(graph)
        while holder is not None:
            around.append(holder)
            holder = holders.get(holder.graph)
        depths.update({node: depth for depth, node in enumerate(reversed(around))})
    ifs = [node for node in depths if node.op_type == "If" and node.domain == ""]
    return sorted(ifs, key=lambda node: -depths[node])


def _are_equal(one: ir.Graph, other: ir.Graph) -> bool:
    pending = list(zip(one.outputs, other.outputs, strict=True))
    seen = set[tuple[ir.Value, ir.Value]]()
    while pending:
        pair = _origin(pending.pop(), one, other)
        if pair in seen or pair[0] is pair[1]:
            continue
        seen.add(pair)
        left, right = pair
        a, b = left.producer(), right.producer()
        if left.const_value is not None and right.const_value is not None:
            if a is b is None and _equal_tensors(left.const_value, right.const_value):
                continue
            return False
        if a is None or b is None or a.graph is not one or b.graph is not other or left.index() != right.index():
            return False
        if a.op_identifier() != b.op_identifier() or len(a.inputs) != len(b.inputs) or _draws(a):
            return False
        if len(a.outputs) != len(b.outputs) or not _equal_attributes(a, b):
            return False
        for x, y in zip(a.inputs, b.inputs, strict=True):
            if (x is None) != (y is None):
                return False
            if x is not None and y is not None:
                pending.append((x, y))
    return True


def _draws(node: ir.Node) -> bool:
    return node.op_type == DROPOUT or is_spatial_dropout(node) or may_be_random(node.domain, node.op_type)


def _origin(pair: tuple[ir.Value, ir.Value], *graphs: ir.Graph) -> tuple[ir.Value, ir.Value]:
    """Look through the Identity nodes of both branches."""
    found = []
    for value, graph in zip(pair, graphs, strict=True):
        node = value.producer()
        while node is not None and node.graph is graph and node.op_type == "Identity" and node.domain == "":
            source = node.inputs[0]
            if source is None:
                break
            value, node = source, source.producer()
        found.append(value)
    return found[0], found[1]


def _equal_tensors(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one is other:
        return True
    if one.dtype != other.dtype or tuple(one.shape.numpy()) != tuple(other.shape.numpy()):
        return False
    if one.dtype == ir.DataType.STRING:
        return bool(np.array_equal(one.numpy(), other.numpy()))
    return one.tobytes() == other.tobytes()


def _equal_attributes(one: ir.Node, other: ir.Node) -> bool:
    if one.attributes.keys() != other.attributes.keys():
        return False
    for name, mine in one.attributes.items():
        theirs = other.attributes[name]
        if mine.type != theirs.type or mine.ref_attr_name != theirs.ref_attr_name:
            return False
        if mine.type == ir.AttributeType.TENSOR and not mine.is_ref():
            if not _equal_tensors(mine.as_tensor(), theirs.as_tensor()):
                return False
        elif (
            mine.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.TENSORS)
            or mine.value != theirs.value
        ):
            return False
    return True


def _move_out(model: ir.Model, node: ir.Node, branch: ir.Graph) -> None:
    """Put what a branch computes in the place of its If, under names that nothing has."""
    graph, names = node.graph, Names(model)
    assert graph is not None
    results = list(branch.outputs)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        tensor, old = value.const_value, value.name or ""
        assert tensor is not None
        del branch.initializers[old]
        new = names.prefix(old)
        constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[ir.Value(name=new)], name=new)
        constant.outputs[0].type, constant.outputs[0].shape = value.type, value.shape
        graph.insert_before(node, constant)
        results = [constant.outputs[0] if result is value else result for result in results]
        value.replace_all_uses_with(constant.outputs[0])
    for moved in list(branch):
        branch.remove(moved)
        for value in moved.outputs:
            value.name = names.prefix(value.name or "value")
        graph.insert_before(node, moved)
    for output, result in zip(node.outputs, results, strict=True):
        producer = result.producer()
        if not output.is_graph_output():
            output.replace_all_uses_with(result)
        elif producer is not None and producer.graph is graph and not result.is_graph_output():
            replace.take_over(output, result)
        else:
            name = names.prefix(f"{output.name}/chosen")
            identity = ir.Node("", "Identity", [result], [], outputs=[ir.Value(name=name)], name=name)
            graph.insert_before(node, identity)
            replace.take_over(output, identity.outputs[0])
    replace.remove(node)
