"""Which ops a positive factor may be drawn through, f(c x) = c f(x), and what lies between it and a product. Pure."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.constants import cast_target, dtype_of
from onnx_spatialdrop.graph.ops import Fact
from onnx_spatialdrop.operator import spec

__all__ = ["DEPTH", "commutes", "is_close", "only_use", "products_behind"]

#: How many nodes a factor is drawn through.
DEPTH: Final = 16


def commutes(node: ir.Node, index: int) -> bool:
    """Return whether a factor of the input number ``index`` may as well stand behind ``node``."""
    if node.domain or len(node.outputs) != 1:
        return False
    if node.op_type == "Cast":
        kinds = dtype_of(node.inputs[0]), cast_target(node)
        return all(kind in spec.DTYPES.values() for kind in kinds)
    return ops.has(node, Fact.SCALES) or (ops.has(node, Fact.SCALE) and index == 0)


def only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    """Return the only use of a value's entries; None where there are more, or it is a result of the graph."""
    uses = [use for use in value.uses() if use.node.op_type not in ("Shape", "Size")]
    return (uses[0].node, uses[0].idx) if len(uses) == 1 and not value.is_graph_output() else None


def products_behind(value: ir.Value | None, products: Container[ir.Value], depth: int = DEPTH) -> set[ir.Value] | None:
    """Return the products that ``value`` is made of; None where there is anything else, or a second reader."""
    if value is None or depth == 0 or only_use(value) is None:
        return None
    if value in products:
        return {value}
    node = value.producer()
    if node is None or not commutes(node, 0):
        return None
    found = set[ir.Value]()
    for operand in node.inputs if ops.has(node, Fact.SCALES) else node.inputs[:1]:
        inner = products_behind(operand, products, depth - 1)
        if inner is None:
            return None
        found |= inner
    return found


def is_close(factor: float, wanted: float, eps: float) -> bool:
    """Return whether ``factor``, a number of a type with the unit ``eps`` in the last place, was ``wanted``."""
    return abs(factor / wanted - 1.0) <= 1e-6 + 4.0 * eps
