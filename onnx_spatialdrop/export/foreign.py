"""Refuse an exported model that holds operators which ONNX does not have, by the layer that they came from."""

from __future__ import annotations

import re
from typing import Any

import onnx
import onnx_ir as ir

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.graph import scopes

__all__ = ["refuse_foreign"]


def refuse_foreign(model: ir.Model, keras_model: Any = None) -> None:
    """Check that every operator of ONNX's own domain is one that ONNX has.

    tf2onnx writes what it cannot convert as if it were an operator of ONNX's, and only logs it.

    Args:
        model: what an exporter wrote.
        keras_model: where it came from; nodes are named after its layers.

    Raises:
        SpatialDropError: there is one that no runtime has; it names the layer, or else the node, and the way out.
    """
    foreign: dict[str, dict[str, None]] = {}
    layers = {} if keras_model is None else {layer.name: type(layer).__name__ for layer in _layers(keras_model)}
    for node in scopes.all_nodes(model):
        if node.domain == "" and not onnx.defs.has(node.op_type):
            foreign.setdefault(_where(node.name or "", layers), {})[node.op_type] = None
    if foreign:
        where, operators = next(iter(foreign.items()))
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise SpatialDropError(
            f"{where}{more}: the exporter left {', '.join(operators)}, which ONNX does not have, so that no runtime "
            "loads the file; take what needs it out of the model and do it before, in Python"
        )


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=False, recursive=True))


def _where(name: str, layers: dict[str, str]) -> str:
    """Return the innermost layer in whose scope a node is; scopes are numbered where a layer is called again."""
    for part in reversed(name.split("/")):
        for candidate in (part, re.sub(r"_\d+$", "", part)):
            if candidate in layers:
                return f"layer {candidate!r} ({layers[candidate]})"
    return f"node {name!r}"
