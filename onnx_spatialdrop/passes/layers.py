"""What a framework's layer is called in a model: the name that verification and mask inputs go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

__all__ = ["LAYER_KEY", "call_name", "layer_names"]

#: metadata_props of a node: the qualified name of the layer whose call it is; "" is the root.
LAYER_KEY: Final = "onnx_spatialdrop.layer"


def call_name(layer: str, call: int) -> str:
    """Return the name of a layer's call: the layer's own for its first call, "layer:1" for its second."""
    return f"{layer}:{call}" if call else layer


def layer_names(nodes: Iterable[ir.Node]) -> list[str]:
    """Return a name for each node, in the order given, no name twice.

    1. A node that says in its metadata which layer it was is called that; several calls of a layer are "layer",
       "layer:1", "layer:2", ... in the order of the nodes.
    2. Any other node, and the root's, is called by its own name, or by its first output's where it has none.
    """
    seen: Counter[str] = Counter()
    names = []
    for node in nodes:
        layer = node.metadata_props.get(LAYER_KEY) or node.name or node.outputs[0].name or node.op_type
        names.append(call_name(layer, seen[layer]))
        seen[layer] += 1
    return names
