"""Put the nodes of a ModelProto into topological order. Runtimes sort by themselves, and so some tools do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import NodeProto

from onnx_spatialdrop.storage.wellformed_values import subgraphs

__all__ = ["reorder", "sort_nodes"]


def sort_nodes(model: onnx.ModelProto) -> bool:
    """Sort every graph and function whose nodes read what a later one computes, in place; return whether any was.

    1. A node that is read too early moves to right before the first that reads it, and what it needs before it; all
       others keep their order. What a subgraph reads, the node that holds it reads.
    2. Nodes on a cycle stay, and so does the order of their graph.
    """
    changed = False
    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        body = pending.pop()
        order = _order(body.node)
        if order is not None:
            ranks = [0] * len(order)
            for rank, place in enumerate(order):
                ranks[place] = rank
            reorder(body.node, ranks)
            changed = True
        for node in body.node:
            pending += [graph for attribute in node.attribute for graph in subgraphs(attribute)]
    return changed


def reorder(items: Any, ranks: Iterable[float]) -> None:
    """Sort a repeated field by the ranks of its entries, in place; equal ranks keep their order."""
    following = iter(ranks).__next__
    items.sort(key=lambda _: following())


def _read(node: NodeProto) -> set[str]:
    """Return what a node and its subgraphs read of the names around it."""
    found = set(node.input)
    for graph in (graph for attribute in node.attribute for graph in subgraphs(attribute)):
        inside = {value.name for value in graph.output}.union(*map(_read, graph.node))
        own = {value.name for value in (*graph.input, *graph.initializer)}
        found |= inside - own.union(*(held.output for held in graph.node))
    return found


def _order(nodes: Any) -> list[int] | None:
    """Return the places of ``nodes`` in their new order; None where they may stay."""
    makers: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.output:
            if name:
                makers.setdefault(name, place)
    needs = [sorted({makers[name] for name in _read(node) if name in makers}) for node in nodes]
    order: list[int] = []
    state = bytearray(len(needs))  # 1: on the way, 2: done
    for start in range(len(needs)):
        path = [] if state[start] else [start]
        while path:
            place = path[-1]
            state[place] = 1
            need = next((each for each in needs[place] if state[each] != 2), None)
            if need is None:
                state[place] = 2
                order.append(path.pop())
            elif state[need] == 1:
                return None  # a cycle
            else:
                path.append(need)
    return order if order != list(range(len(order))) else None
