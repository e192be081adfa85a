"""Marks on SpatialDropout nodes that share a seed on purpose: several products of one mask."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

__all__ = ["is_tied", "tie"]

#: The key in a node's metadata; its value names the mask that the nodes share.
_KEY: Final = "onnx_spatialdrop.tied"


def tie(node: ir.Node, mask: str) -> None:
    """Mark ``node`` as one of those that share ``mask``, in place."""
    node.metadata_props[_KEY] = mask


def is_tied(node: ir.Node) -> bool:
    """Return whether ``node`` shares its seed on purpose."""
    return _KEY in node.metadata_props
