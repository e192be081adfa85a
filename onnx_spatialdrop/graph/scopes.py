"""Where nodes live: the main graph, the subgraphs of If, Loop and Scan, and model-local functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

__all__ = [
    "Scope",
    "Site",
    "all_nodes",
    "captured",
    "default_opset",
    "foreign_scopes",
    "scopes",
    "spatial_dropouts",
    "subgraphs",
]

#: What has inputs, outputs and an opset of its own.
Scope = ir.Graph | ir.Function


@dataclass(frozen=True)
class Site:
    """A node and where it stands.

    Attributes:
        node: the node.
        scope: the main graph or the function that holds it, however deep in subgraphs it is.
        opset: the version of ONNX's default domain that applies to it.
    """

    node: ir.Node
    scope: Scope
    opset: int


def scopes(model: ir.Model) -> Iterator[Scope]:
    """Yield the main graph and every model-local function; ``all_nodes()`` of each walks its subgraphs."""
    yield model.graph
    yield from model.functions.values()


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node of the model, subgraphs and functions included."""
    for scope in scopes(model):
        yield from scope.all_nodes()


def foreign_scopes(model: ir.Model) -> Iterator[Scope]:
    """Yield what scopes yields but for the operator's own functions, whose insides are nobody else's business."""
    for scope in scopes(model):
        if not (isinstance(scope, ir.Function) and scope.domain == spec.DOMAIN):
            yield scope


def spatial_dropouts(model: ir.Model) -> list[Site]:
    """Return every SpatialDropout node, in the order of the file; a list, so that nodes may be replaced meanwhile.

    A mask without a name gets one, since it would be lost when the model is written; nothing else is changed.
    """
    sites = [
        Site(node, scope, default_opset(scope, model))
        for scope in scopes(model)
        for node in scope.all_nodes()
        if op.is_spatial_dropout(node)
    ]
    for site in sites:
        op.complete(site.node)
    return sites


def default_opset(scope: Scope, model: ir.Model) -> int:
    """Return the version of ONNX's default domain that ``scope`` imports; 1 where it imports none."""
    imports = scope.opset_imports if isinstance(scope, ir.Function) else model.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that are attributes of a node, without those inside them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what the subgraphs of a node read from outside of them, maybe several times."""
    for graph in subgraphs(node):
        inner = {graph, *graph.subgraphs()}
        for each in graph.all_nodes():
            yield from (value for value in each.inputs if value is not None and value.graph not in inner)
        yield from (value for value in graph.outputs if value.graph not in inner)
