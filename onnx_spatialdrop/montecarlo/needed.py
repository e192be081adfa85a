"""Drop what a graph's outputs do not need: nodes, weights and inputs that were made for others. Main graph only."""

from __future__ import annotations

import onnx_ir as ir

from onnx_spatialdrop.montecarlo.plan import nodes_within, reads

__all__ = ["keep_needed"]


def keep_needed(graph: ir.Graph) -> None:
    """Remove nodes and initializers that no output follows from, in place; inputs stay, with their defaults.

    onnx_ir's pass leaves nodes whose values are read inside of a node that it has removed.
    """
    wanted = set(graph.outputs)
    idle: list[ir.Node] = []
    for node in reversed(list(graph)):
        if any(value in wanted for value in node.outputs):
            wanted.update(reads(node))
        else:
            idle.append(node)
    for node in idle:
        for each in nodes_within(node):
            for index in range(len(each.inputs)):
                each.replace_input_with(index, None)
    graph.remove(idle)
    inputs = {value.name for value in graph.inputs}
    for name, value in list(graph.initializers.items()):
        if value not in wanted and name not in inputs:
            del graph.initializers[name]
