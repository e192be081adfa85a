"""What a framework's layer is called in a model: the name that verification and mask inputs go by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.operator import spec

__all__ = ["CALL_KEY", "LAYER_KEY", "call_name", "layer_names", "split_name"]

#: metadata_props of a node: the qualified name of the layer whose call it is; "" is the root.
LAYER_KEY: Final = "onnx_spatialdrop.layer"
#: metadata_props of a node: which of the layer's calls it is, from 0 on. Exporters may write them in another order.
CALL_KEY: Final = "onnx_spatialdrop.call"


def call_name(layer: str, call: int) -> str:
    """Return the name of a layer's call: the layer's own for its first call, "layer:1" for its second."""
    return f"{layer}:{call}" if call else layer


def split_name(name: str) -> tuple[str, int]:
    """Return the layer and the number of the call that call_name made a name of."""
    layer, _, call = name.rpartition(":")
    return (layer, int(call)) if layer and call.isdecimal() else (name, 0)


def layer_names(nodes: Iterable[ir.Node]) -> list[str]:
    """Return a name for each node, in the order given, no name twice.

    1. A node that says in its metadata which layer it was is called that; several calls of a layer are "layer",
       "layer:1", "layer:2", ... by the number in their metadata, or in the order of the nodes where there is none.
    2. The root's are called "SpatialDropout".
    3. Any other node is called by its own name, or by its first output's where it has none.
    """
    names: dict[str, None] = {}
    for node in nodes:
        layer = node.metadata_props.get(LAYER_KEY, node.name or node.outputs[0].name) or spec.OP_TYPE
        number = node.metadata_props.get(CALL_KEY, "")
        wanted = [int(number)] if number.isdecimal() else []
        possible = (call_name(layer, call) for call in itertools.chain(wanted, itertools.count()))
        names[next(name for name in possible if name not in names)] = None
    return list(names)
