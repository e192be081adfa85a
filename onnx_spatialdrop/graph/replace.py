"""Put one value in another's place without anybody outside noticing: uses, graph outputs, names, types, shapes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_spatialdrop.graph import scopes

__all__ = ["bypass", "remove", "splice", "take_over", "take_place"]


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Make ``new``, a value without a past, stand where ``old`` stood: its uses, outputs, name, type and shape."""
    name = old.name
    new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
    new.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def take_place(node: ir.Node, nodes: Sequence[ir.Node], results: Sequence[ir.Value | None]) -> None:
    """Put ``nodes`` where ``node`` stands, in place; ``results`` become its outputs, None for one that nobody needs."""
    assert node.graph is not None
    node.graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        if new is not None and (old is node.outputs[0] or old.uses() or old.is_graph_output()):
            take_over(old, new)
    remove(node)


def remove(node: ir.Node) -> None:
    """Take a node out of its graph; what the graphs in it read has one reader less."""
    assert node.graph is not None
    for inner in (each for graph in scopes.subgraphs(node) for each in graph.all_nodes()):
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)
    node.graph.remove(node, safe=True)


def splice(node: ir.Node, source: ir.Value) -> bool:
    """Take ``node`` out and let users of its first output read ``source``; return False where that is not legal.

    1. An output that is no graph output: its users read ``source`` and the node goes.
    2. A graph output whose source is computed in the same graph and is no graph output itself: the source takes the
       output's name, type and shape, and the node goes.
    3. Any other graph output (the source is an input, an initializer, another output, or belongs to an outer graph):
       the node has to stay in some form, and nothing is changed.
    """
    graph, output = node.graph, node.outputs[0]
    if graph is None:
        return False
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False  # case 3
        take_over(output, source)  # case 2
    else:
        if source.type is None:
            source.type = output.type
        if source.shape is None:
            source.shape = output.shape
        output.replace_all_uses_with(source)  # case 1
    remove(node)
    return True


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Take ``node`` out as splice does; where that is not legal it stays as an Identity of ``source``."""
    if splice(node, source):
        return
    node.op_type = "Identity"
    node.attributes.clear()
    node.replace_input_with(0, source)
    node.resize_inputs(1)
    node.resize_outputs(1)
