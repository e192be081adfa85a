"""Find what this package itself wrote out of SpatialDropout nodes, by the tags it left. Never changes the model.

The tags give back what standard ops cannot hold: the seed, and the float32 ratio to the last bit. Where a tool has
stripped them, the forms "uniform" and "dropout" are still recognised by what they compute.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph import ops, scopes
from onnx_spatialdrop.graph.build import ATTRIBUTES_KEY, MASK_KEY, NODE_KEY
from onnx_spatialdrop.graph.constants import array_of
from onnx_spatialdrop.graph.ops import Fact
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.masks.builder import STEP, TRAINING
from onnx_spatialdrop.passes.masks.ports import control_inputs, is_generated

__all__ = ["ExpandedRegion", "tagged_regions"]


@dataclass(frozen=True)
class ExpandedRegion:
    """The nodes that stand for one SpatialDropout node.

    Attributes:
        name: that node's name.
        attributes: that node's attributes.
        scope: the main graph or the function that holds it.
        nodes: the nodes, in the order of the graph.
        x: what is dropped from.
        y: the result.
        mask: the mask, where something outside reads it.
        training_mode: what switches it; None where it is always on.
        step: which draw; None where the form has no use for it.
        mask_input: the graph input that is the mask, in the form "mask-inputs"; None elsewhere.
        metadata: what else that node had in its metadata_props.
        exclusive: nothing but that node needs the nodes.
    """

    name: str
    attributes: spec.Attributes
    scope: scopes.Scope
    nodes: tuple[ir.Node, ...]
    x: ir.Value
    y: ir.Value
    mask: ir.Value | None
    training_mode: ir.Value | None
    step: ir.Value | None
    mask_input: ir.Value | None
    metadata: dict[str, str]
    exclusive: bool = True

    def own_nodes(self) -> Iterator[ir.Node]:
        """Yield the nodes that go where the region becomes a node."""
        product = self.y.producer()
        yield from self.nodes if self.exclusive or product is None else (product,)


def tagged_regions(model: ir.Model) -> list[ExpandedRegion]:
    """Return the regions whose borders are those of a SpatialDropout node, in the order of the file."""
    found = []
    for scope in scopes.scopes(model):
        tagged: dict[tuple[int, str, str], list[ir.Node]] = defaultdict(list)
        for node in scope.all_nodes():
            if ATTRIBUTES_KEY in node.metadata_props and NODE_KEY in node.metadata_props:
                key = (id(node.graph), node.metadata_props[NODE_KEY], node.metadata_props[ATTRIBUTES_KEY])
                tagged[key].append(node)
        for (_, name, text), nodes in tagged.items():
            attributes = _attributes(text)
            if attributes is not None:
                regions = (_region(name, attributes, scope, part) for part in _connected(nodes))
                found += [region for region in regions if region is not None]
    return found


def _attributes(text: str) -> spec.Attributes | None:
    try:
        content = json.loads(text)
        return spec.Attributes(**{**content, "axes": tuple(content["axes"])})
    except (SpecError, TypeError, ValueError, KeyError):
        return None


def _connected(nodes: list[ir.Node]) -> list[list[ir.Node]]:
    """Return the connected parts of ``nodes``: equal tags may be those of several nodes."""
    inside, part_of = set(nodes), dict[ir.Node, int]()
    for number, start in enumerate(nodes):
        stack = [] if start in part_of else [start]
        while stack:
            node = stack.pop()
            if node in part_of:
                continue
            part_of[node] = number
            producers = [value.producer() for value in node.inputs if value is not None]
            users = [use.node for value in node.outputs for use in value.uses()]
            stack += [other for other in (*producers, *users) if other is not None and other in inside]
    parts: dict[int, list[ir.Node]] = defaultdict(list)
    for node in nodes:
        parts[part_of[node]].append(node)
    return list(parts.values())


def _region(name: str, attributes: spec.Attributes, scope: scopes.Scope, nodes: list[ir.Node]) -> ExpandedRegion | None:
    """Return the region, None where its borders are not X, training_mode, step and Y, mask."""
    inside = set(nodes)
    read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    inputs = [value for value in read if value.producer() is None or value.producer() not in inside]
    outputs = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]
    carried = dict(nodes[0].metadata_props)
    made = [value for value in inputs if is_generated(value)]
    found = control_inputs(made)
    if made:  # what else a product reads are constants, and what it drops from
        inputs = [value for value in inputs if value not in made and array_of(value) is None]
    fed = [value for value in inputs if value.is_graph_input() and value.name == carried.get(MASK_KEY)]
    switches = [value for value in inputs if value.dtype == ir.DataType.BOOL and value not in fed]
    steps = [value for value in inputs if value.dtype == ir.DataType.INT64]
    if made:
        switches, steps = ([found[name]] if name in found else [] for name in (TRAINING, STEP))
    xs = [value for value in inputs if value not in (*switches, *steps, *fed)]
    masks = [value for value in outputs if _is_bool(value)]
    ys = [value for value in outputs if value not in masks]
    if len(xs) != 1 or len(ys) != 1 or max(len(switches), len(steps), len(masks), len(fed)) > 1:
        return None
    mask, switch, step, given = (values[0] if values else None for values in (masks, switches, steps, fed))
    metadata = {key: value for key, value in carried.items() if key not in (NODE_KEY, ATTRIBUTES_KEY, MASK_KEY)}
    return ExpandedRegion(name, attributes, scope, tuple(nodes), xs[0], ys[0], mask, switch, step, given, metadata)


def _is_bool(value: ir.Value) -> bool:
    if value.dtype is not None:
        return value.dtype == ir.DataType.BOOL
    producer = value.producer()
    if producer is not None and producer.op_type == "Expand" and producer.inputs[0] is not None:
        return _is_bool(producer.inputs[0])
    return producer is not None and ops.has(producer, Fact.BOOLEAN)
