"""One spelling for equal graphs: an exporter that walks sets writes nodes, constants and counters in any order.

Only order and generated names change, never what is computed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["canonicalize"]

# What tf2onnx.utils.make_name appends, on values before the output's number.
_COUNTER = re.compile(r"__\d+(?=(?::\d+)?$)")


def canonicalize(model: ir.Model) -> None:
    """Order nodes and initializers by what the outputs need first, and number generated names in that order, in place.

    1. A graph's nodes follow its outputs, depth first, inputs in their order; nodes that no output needs go last, in
       the order they had. Subgraphs likewise.
    2. Initializers follow their first use.
    3. The counter in a generated name ("Relu__23", "Relu__23:0") becomes the number of such names before it; names of
       graph inputs and outputs stay, and nothing else gets their numbers. So do the names of symbolic dimensions, but
       for their counters.
    """
    _order(model.graph)
    names = _Names(model.graph)
    for value in model.graph.inputs:
        names.dims(value)
    for node in model.graph.all_nodes():
        names.node(node)
    for value in model.graph.outputs:
        names.dims(value)
    names.register()


def _order(graph: ir.Graph) -> None:
    seen: set[ir.Node] = set()
    for root in [value.producer() for value in graph.outputs] + list(graph):
        stack = [(root, False)] if root is not None and root.graph is graph else []
        while stack:
            node, done = stack.pop()
            if done:
                graph.remove(node)
                graph.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                producers = (value.producer() for value in _needs(node))
                stack += [(p, False) for p in reversed(list(producers)) if p is not None and p.graph is graph]
    for node in graph:
        for subgraph in _subgraphs(node):
            _order(subgraph)
    used = [value for node in graph.all_nodes() for value in node.inputs if value is not None]
    initializers = dict.fromkeys(v for v in [*used, *graph.outputs] if v.graph is graph and v.is_initializer())
    for value in [*initializers, *(v for v in graph.initializers.values() if v not in initializers)]:
        del graph.initializers[value.name or ""]
        graph.register_initializer(value)


def _needs(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    for subgraph in _subgraphs(node):
        for inner in subgraph:
            yield from _needs(inner)
        yield from subgraph.outputs


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


class _Names:
    def __init__(self, graph: ir.Graph) -> None:
        self.kept = {id(value) for value in [*graph.inputs, *graph.outputs]}
        known = (_COUNTER.search(value.name or "") for value in [*graph.inputs, *graph.outputs])
        reserved = {match.group() for match in known if match}
        self.free = (f"__{number}" for number in itertools.count(1) if f"__{number}" not in reserved)
        self.numbers: dict[str, str] = {}
        self.renamed: set[int] = set()
        self.initializers: list[tuple[ir.Graph, ir.Value]] = []

    def node(self, node: ir.Node) -> None:
        for value in [*node.inputs, *node.outputs]:
            if value is not None:
                self.value(value)
        if node.name:
            node.name = self.fresh(node.name)
        for subgraph in _subgraphs(node):
            for value in [*subgraph.inputs, *subgraph.outputs]:
                self.value(value)

    def value(self, value: ir.Value) -> None:
        if id(value) not in self.renamed:
            self.renamed.add(id(value))
            if id(value) not in self.kept and value.name and _COUNTER.search(value.name):
                graph = value.graph
                if value.is_initializer() and graph is not None:
                    del graph.initializers[value.name]
                    self.initializers.append((graph, value))
                value.name = self.fresh(value.name)
            self.dims(value)

    def register(self) -> None:
        """Give graphs their renamed initializers back, once all are renamed: a new name may be another's old one."""
        for graph, value in self.initializers:
            graph.register_initializer(value)

    def dims(self, value: ir.Value) -> None:
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    ir.SymbolicDim(self.fresh(d.value)) if isinstance(d, ir.SymbolicDim) and d.value else d
                    for d in value.shape
                ]
            )

    def fresh(self, name: str) -> str:
        """Return ``name`` with its counter renumbered, the same for the same counter."""
        match = _COUNTER.search(name)
        if match is None:
            return name
        counter = match.group()
        if counter not in self.numbers:
            self.numbers[counter] = next(self.free)
        return name[: match.start()] + self.numbers[counter] + name[match.end() :]
