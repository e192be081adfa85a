"""Which axes a node names: in an attribute in old opsets, in an input in newer ones. Reads one node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph.constants import array_of

__all__ = ["axes_of", "named_ints"]


def named_ints(
    node: ir.Node, name: str, position: int, read: Callable[[ir.Value], np.ndarray[Any, Any] | None] = array_of
) -> list[int] | None:
    """Return the integers of attribute ``name``, or of the input at ``position`` where there is no such attribute.

    Args:
        node: the node.
        name: the attribute's name.
        position: the input's index.
        read: what tells an input's content; by default constants alone are known.

    Returns:
        The integers; None where the node names none, or where ``read`` does not know them.
    """
    if name in node.attributes:
        return list(node.attributes.get_ints(name))
    value = node.inputs[position] if len(node.inputs) > position else None
    array = None if value is None else read(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]


def axes_of(node: ir.Node) -> list[int] | None:
    """Return the axes of a Squeeze, Unsqueeze or reduction: an attribute, or its second input where it is constant."""
    return named_ints(node, "axes", 1)
