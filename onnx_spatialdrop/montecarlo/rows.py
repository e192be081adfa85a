"""Follow the batch through a graph: which values hold samples, along which axis, and where that can no longer be said.

The proof is made of one rule an operator (row_rules.py, view_rules.py, size_rules.py). What has no rule is not proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop.montecarlo import facts
from onnx_spatialdrop.montecarlo.facts import Dim, Fact, Multiple, Unproven
from onnx_spatialdrop.montecarlo.inference import inferred
from onnx_spatialdrop.montecarlo.row_rules import LAYERS
from onnx_spatialdrop.montecarlo.size_rules import made_of_sizes
from onnx_spatialdrop.montecarlo.view import UNUSABLE, Place, View
from onnx_spatialdrop.montecarlo.view_rules import MOVES, reshape_target, reshaped
from onnx_spatialdrop.operator import node as op

__all__ = ["RANDOM", "Tracker"]

RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_RULES: Final = LAYERS | MOVES


class Tracker:
    """What is known of every value of a graph, node by node.

    Attributes:
        known: a fact for each value met so far.
    """

    def __init__(self, opsets: Mapping[str, int], outer: Tracker | None = None) -> None:
        self.known: dict[ir.Value, Fact] = {}
        self._opset = opsets.get("", opsets.get("ai.onnx", 1))
        self._opsets = opsets
        self._imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self._outer = outer

    def of(self, value: ir.Value) -> Fact:
        """Return what is known of a value: a constant's content, what a node's rule found, or nothing."""
        fact = self.known.get(value)
        if fact is None and self._outer is not None:
            fact = self._outer.of(value)
        if fact is None and value.const_value is not None and not value.is_graph_input():
            tensor = value.const_value
            dims = tuple(int(dim) for dim in tensor.shape.numpy())
            fact = Fact(dtype=int(tensor.dtype), dims=dims)
            if int(np.prod(dims)) <= 4096:
                fact = facts.constant(np.asarray(tensor.numpy()), int(tensor.dtype))
            self.known[value] = fact
        return fact if fact is not None else facts.mixed(f"nothing is known of {value.name!r}")

    def step(self, node: ir.Node, *, stochastic: bool = False) -> str:
        """Work out what a node's outputs are; return "" or why that is not proven.

        What is not proven still has the type and sizes that onnx's inference gives: they say where the rows of what
        runs once are.
        """
        view = View(node, [None if x is None else self.of(x) for x in node.inputs], self._version(node))
        outputs = inferred(node, self.of, self._version(node), self._imports)
        try:
            found = self._outputs(node, view, outputs, stochastic)
        except Unproven as reason:
            found = [_by_shape(fact, str(reason)) for fact in outputs]
            self.known.update(zip(node.outputs, found, strict=True))
            return str(reason)
        self.known.update(zip(node.outputs, found, strict=True))
        return ""

    def _version(self, node: ir.Node) -> int:
        return self._opset if node.domain in ("", "ai.onnx") else self._opsets.get(node.domain, 1)

    def _outputs(self, node: ir.Node, view: View, outputs: list[Fact], stochastic: bool) -> list[Fact]:
        standard = node.domain in ("", "ai.onnx")
        if op.is_spatial_dropout(node):
            return self._spatial_dropout(view)
        for fact in view.inputs:
            if fact is not None and fact.mixed:
                raise Unproven(fact.mixed)
        if node.op_type == "Constant" and standard:
            return [self._constant(node)]
        if standard and node.op_type == "If":
            return self._branches(node, view)
        captured = [self.of(value) for value in _captured(node)]
        if any(not fact.shared for fact in captured):
            raise Unproven("its body reads samples")
        entries = made_of_sizes(view, outputs) if standard else None
        if entries is not None:
            return [replace(outputs[0], entries=entries, axis=None)]
        inputs = [fact for fact in view.inputs if fact is not None]
        if all(fact.shared for fact in inputs) and not (standard and node.op_type in ("Shape", "Size")):
            if (standard and node.op_type in RANDOM) or (stochastic and _captured_graphs(node)):
                raise Unproven("it draws one noise for all samples")
            return [replace(fact, axis=None) for fact in outputs]
        if not standard:
            raise Unproven("there is no rule for this operator")
        if node.op_type in ("ConstantOfShape", "Expand", "Reshape"):
            return [self._made(node, view, outputs[0])]
        rule = _RULES.get(node.op_type)
        if rule is None:
            raise Unproven("there is no rule for this operator")
        places = rule(view)
        listed = list(places) if isinstance(places, list) else [places] * len(outputs)
        listed += [UNUSABLE] * (len(outputs) - len(listed))
        return [_placed(fact, place) for fact, place in zip(outputs, listed, strict=False)]

    def _spatial_dropout(self, view: View) -> list[Fact]:
        if view.get(0).shared:
            raise Unproven("it drops from what all samples share")
        axis, block, rank = view.rows()
        shared = {each % rank for each in op.read(view.node).axes}
        if axis != 0 or block != 1 or view.rows(2)[:2] != (0, 1):
            raise Unproven("a step a sample needs the samples along axis 0, one entry each")
        if 0 in shared:
            raise Unproven("it has one mask for all samples (axis 0 is shared)")
        mask = tuple(1 if index in shared else dim for index, dim in enumerate(view.dims()))
        return [replace(view.get(0), entries=None, array=None), Fact(int(ir.DataType.BOOL), mask, 0)]

    def _constant(self, node: ir.Node) -> Fact:
        value = node.outputs[0]
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None:
            return Fact()
        return facts.constant(np.asarray(tensor.numpy()), int(tensor.dtype))

    def _made(self, node: ir.Node, view: View, output: Fact) -> Fact:
        """Reshape, Expand, ConstantOfShape: what makes a shape from sizes."""
        if node.op_type == "Reshape":
            if view.get(0).axis is None:
                raise Unproven("it cuts by the number of samples what all share")
            (axis, block), dims = reshaped(view)
            return replace(output, dims=dims, axis=axis, block=block, entries=None)
        target = reshape_target(view) if node.op_type == "Expand" else view.get(0).entries
        if target is None:
            raise Unproven("the shape that it makes is not known")
        if node.op_type == "ConstantOfShape":
            place = _only_multiple(target)
            return replace(output, dims=target, axis=place[0], block=place[1], entries=None)
        return self._expanded(view.get(0), target, output)

    def _expanded(self, x: Fact, target: tuple[Dim, ...], output: Fact) -> Fact:
        rank = max(len(target), x.rank)
        wide: list[Dim] = [*[1] * (rank - len(target)), *target]
        own: list[Dim] = [*[1] * (rank - x.rank), *(x.dims or ())]
        if x.axis is not None:
            axis, block = x.axis + rank - x.rank, x.block
            if wide[axis] not in (1, Multiple(block)):
                raise Unproven("it writes the number of samples into a shape")
            if any(isinstance(dim, Multiple) for index, dim in enumerate(wide) if index != axis):
                raise Unproven("it moves the samples' axis")
        else:
            axis, block = _only_multiple(wide)
            if own[axis] != 1:
                raise Unproven("what all samples share has a size along the samples' axis")
        dims = [
            new if old == 1 else (old if new == 1 or new == old else None) for old, new in zip(own, wide, strict=True)
        ]
        dims[axis] = Multiple(block)
        return replace(output, dims=tuple(dims), axis=axis, block=block, entries=None)

    def _branches(self, node: ir.Node, view: View) -> list[Fact]:
        if not view.get(0).shared:
            raise Unproven("samples choose its branch")
        results: list[list[Fact]] = []
        for name in ("then_branch", "else_branch"):
            graph = node.attributes[name].as_graph()
            inner = Tracker(self._opsets, self)
            reasons = [(each, inner.step(each, stochastic=True)) for each in graph]
            results.append([inner.of(value) for value in graph.outputs])
            self.known.update(inner.known)
            for each, reason in reasons:
                if reason:
                    raise Unproven(f"{op.describe(each)} in its branch: {reason}")
        merged = []
        for one, two in zip(*results, strict=True):
            if one.mixed or two.mixed or (one.axis, one.block) != (two.axis, two.block):
                raise Unproven("its branches have the samples along different axes")
            if one.counts_rows or two.counts_rows:
                raise Unproven("it computes with the number of samples")
            dims = None
            if one.dims is not None and two.dims is not None and len(one.dims) == len(two.dims):
                dims = tuple(a if a == b else None for a, b in zip(one.dims, two.dims, strict=True))
            merged.append(replace(one, dims=dims, entries=None, array=None))
        return merged


def _only_multiple(target: Iterable[Dim]) -> tuple[int, int]:
    places = [(index, dim.times) for index, dim in enumerate(target) if isinstance(dim, Multiple)]
    if len(places) != 1:
        raise Unproven("several sizes, or none, are the number of samples")
    return places[0]


def _placed(fact: Fact, place: Place) -> Fact:
    if place is None:
        return replace(fact, axis=None)
    if place == UNUSABLE:
        return facts.mixed("it counts through the whole batch", fact.dtype)
    axis, block = place
    dims = fact.dims
    if dims is not None:
        if axis >= len(dims) or (isinstance(dims[axis], int) and dims[axis] != 0):
            raise Unproven("the number of samples is written into a shape")
        if isinstance(dims[axis], Multiple) and dims[axis] != Multiple(block):
            raise Unproven("sizes contradict each other")
        dims = (*dims[:axis], Multiple(block), *dims[axis + 1 :])
    return replace(fact, dims=dims, axis=axis, block=block)


def _by_shape(fact: Fact, reason: str) -> Fact:
    """Return what the sizes alone say of a value: where the rows lie of what is computed once for all rows."""
    at = [index for index, dim in enumerate(fact.dims or ()) if isinstance(dim, Multiple)]
    if fact.mixed or fact.dims is None or None in fact.dims or len(at) > 1:
        return facts.mixed(reason, fact.dtype)
    if not at:
        return replace(fact, axis=None)
    dim = fact.dims[at[0]]
    assert isinstance(dim, Multiple)
    return replace(fact, axis=at[0], block=dim.times)


def _captured_graphs(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found


def _captured(node: ir.Node) -> list[ir.Value]:
    """Return the values from outside that the graphs in a node read."""
    found: dict[ir.Value, None] = {}
    for graph in _captured_graphs(node):
        inside: set[ir.Value] = set()
        read: list[ir.Value | None] = list(graph.outputs)
        for scope in (graph, *graph.subgraphs()):
            inside |= set(scope.inputs) | set(scope.initializers.values())
        for each in graph.all_nodes():
            inside.update(each.outputs)
            read += each.inputs
        found.update((value, None) for value in read if value is not None and value not in inside)
    return list(found)
