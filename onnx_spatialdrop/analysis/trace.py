"""Follow draws forward through a graph, as far as dropout is made of their abstract values.

The graph is read only. What a value is follows from the ops' definitions alone; names play no part. All draws are
followed at once, in the order of the graph: what stands before a node is settled when the node is looked at, so that
the scale of one dropout is never taken for that of the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_spatialdrop.analysis import algebra
from onnx_spatialdrop.analysis.operands import Context, Operands
from onnx_spatialdrop.analysis.sources import Source
from onnx_spatialdrop.analysis.values import AbstractValue, NotRepresentableError, TwoValued
from onnx_spatialdrop.graph.malformed import MalformedNodeError, reading
from onnx_spatialdrop.operator.node import describe

__all__ = ["Trace", "Use", "follow"]

#: Whether a product is dropout already.
Proven = Callable[[TwoValued], bool]


@dataclass(frozen=True)
class Use:
    """A use of a value where its trace ends: the node that uses it, None for a graph output, and why it ends."""

    value: ir.Value
    node: ir.Node | None
    reason: str


@dataclass
class Trace:
    """Everything that one draw reaches.

    Attributes:
        source: the random node.
        abstracts: what each value that depends on the draw is, in the order of the graph.
        nodes: the nodes that compute those values, the random node first.
        ends: where masks (or the draw itself) go without becoming a product.
        products: the values x * mask that the rest of the graph reads, with their abstract values.
    """

    source: Source
    abstracts: dict[ir.Value, AbstractValue] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)
    ends: list[Use] = field(default_factory=list)
    products: dict[ir.Value, TwoValued] = field(default_factory=dict)


def follow(sources: Sequence[Source], context: Context, position: dict[ir.Node, int], proven: Proven) -> list[Trace]:
    """Return what the draws of ``sources`` reach, one trace a source.

    Args:
        sources: random nodes with abstract values.
        context: what is known of other values; the products that are met are added to it.
        position: each node's place in the order of the file.
        proven: whether a product is dropout already; such a product is followed only into nodes that also read
            something else of this draw (TensorFlow's SelectV2 comes out as kept * x + dropped * 0).
    """
    tracers = [_Tracer(source, context, proven) for source in sources]
    heap: list[tuple[int, int, ir.Node]] = []
    seen = set[tuple[int, int]]()

    def push(index: int, values: Iterable[ir.Value]) -> None:
        for consumer in (use.node for value in values for use in value.uses()):
            place = position[consumer], index
            if place not in seen:
                seen.add(place)
                heapq.heappush(heap, (*place, consumer))

    for index, source in enumerate(sources):
        push(index, source.abstracts)
    while heap:
        _, index, node = heapq.heappop(heap)
        push(index, tracers[index].visit(node))
    return [tracer.finish() for tracer in tracers]


class _Tracer:
    """One draw on its way through the graph."""

    def __init__(self, source: Source, context: Context, proven: Proven) -> None:
        self._trace = Trace(source, dict(source.abstracts), [source.node])
        self._context, self._proven = context, proven
        self._operands = Operands(self._trace.abstracts, context)
        self._shape_readers: list[ir.Node] = []
        for value, abstract in source.abstracts.items():
            if isinstance(abstract, TwoValued) and abstract.x is not None:
                context.products[value] = abstract

    def visit(self, node: ir.Node) -> Sequence[ir.Value]:
        """Work out what ``node``, which reads the draw, computes; return the values to follow from there."""
        abstracts = self._trace.abstracts
        if all(_reads_type_only(node, index) for index, value in enumerate(node.inputs) if value in abstracts):
            self._shape_readers.append(node)
            return ()
        derived = [value for value in dict.fromkeys(node.inputs) if value is not None and value in abstracts]
        reason = self._why_not(node, derived)
        if not reason:
            try:
                with reading(node):
                    abstract = algebra.evaluate(node, self._operands)
            except NotRepresentableError as error:
                reason = str(error)
            except MalformedNodeError:
                reason = f"{describe(node)} is no valid {node.op_type} node"
            else:
                if not self._undoes(abstract, derived):
                    return self._add(node, abstract)
        for value in derived:
            self._end(Use(value, node, reason))
        return ()

    def finish(self) -> Trace:
        """Return the trace, once everything that reads the draw was visited."""
        trace = self._trace
        inner = {*trace.nodes, *self._shape_readers}
        for node in self._shape_readers:
            value = next(value for value in node.inputs if value is not None and value in trace.abstracts)
            if _is_product(trace.abstracts[value]) or not all(_stays_inside(output, inner) for output in node.outputs):
                self._end(Use(value, node, f"its type or shape is read by {describe(node)} ({node.op_type})"))
        for value in trace.abstracts:
            if value.is_graph_output():
                self._end(Use(value, None, "it is an output of the graph"))
        return trace

    def _add(self, node: ir.Node, abstract: AbstractValue) -> Sequence[ir.Value]:
        output = node.outputs[0]
        self._trace.abstracts[output] = abstract
        self._trace.nodes.append(node)
        if isinstance(abstract, TwoValued) and abstract.x is not None:
            self._context.products[output] = abstract
        return (output,)

    def _end(self, use: Use) -> None:
        abstract = self._trace.abstracts[use.value]
        if isinstance(abstract, TwoValued) and abstract.x is not None:
            self._trace.products[use.value] = abstract
        else:
            self._trace.ends.append(use)

    def _why_not(self, node: ir.Node, derived: list[ir.Value]) -> str:
        if not self._context.runs_with(node, self._trace.source.node):
            return f"a subgraph reads it ({node.op_type})"
        switched = node.op_type == "Where" and self._context.constants.switches(node.inputs[0])
        if len(derived) == 1 and not switched and self._is_proven(derived[0]):
            return "it is dropout already"
        return ""

    def _undoes(self, abstract: AbstractValue, derived: list[ir.Value]) -> bool:
        """Return whether dropouts of one mask are combined into what is none itself, such as their difference."""
        if len(derived) < 2 or not isinstance(abstract, TwoValued) or abstract.x is None or self._proven(abstract):
            return False
        return all(self._is_proven(value) for value in derived)

    def _is_proven(self, value: ir.Value) -> bool:
        abstract = self._trace.abstracts[value]
        return isinstance(abstract, TwoValued) and abstract.x is not None and self._proven(abstract)


def _is_product(abstract: AbstractValue) -> bool:
    return isinstance(abstract, TwoValued) and abstract.x is not None


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
