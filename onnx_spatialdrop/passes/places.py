"""Find values of the main graph by what computes them or reads them: where dropout usually goes. Changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph.constants import array_of

__all__ = ["by_kind"]

#: What the last layer of a network is.
_LAYERS: Final = ("Gemm", "MatMul", "Conv", "ConvTranspose")


def by_kind(graph: ir.Graph, after_op: Sequence[str], before_op: Sequence[str], last: bool) -> list[ir.Value]:
    """Return values in the order of the file, each once.

    1. ``after_op``: the first output of every node of these operators.
    2. ``before_op``: what every node of these operators reads first that is no constant.
    3. ``last`` keeps the last one; alone it means before the last layer that has weights.

    Raises:
        SpecError: there is none.
    """
    if last and not after_op and not before_op:
        before_op = _LAYERS  # case 3
    values: dict[ir.Value, None] = {}
    for node in graph:
        if node.domain != "":
            continue
        if node.op_type in before_op:  # case 2
            read = [value for value in node.inputs if value is not None and array_of(value) is None]
            values.update(dict.fromkeys(read[:1]))
        if node.op_type in after_op and node.outputs:  # case 1
            values[node.outputs[0]] = None
    if not values:
        raise SpecError(_none(graph, [*after_op, *before_op]))
    return list(values)[-1:] if last else list(values)


def _none(graph: ir.Graph, wanted: list[str]) -> str:
    kinds = sorted({node.op_type for node in graph if node.domain == ""})
    close = dict.fromkeys(name for each in wanted for name in difflib.get_close_matches(each, kinds, 2, 0.5))
    there = ", ".join(close or kinds[:8]) or "no nodes"
    return f"the main graph has no node of {' or '.join(wanted)}; it has {there}"
