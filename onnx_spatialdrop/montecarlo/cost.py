"""What nodes cost: operations and bytes a sample, from the sizes of their tensors. Estimates, for choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.montecarlo.facts import Dim, Fact, Multiple

__all__ = ["OPEN", "bytes_of", "operations", "peak_bytes"]

#: What a size is taken for that the file leaves open.
OPEN: Final = 64
_WIDTHS: Final = {1: 4, 7: 8, 10: 2, 11: 8, 16: 2, 6: 4, 12: 4, 13: 8, 9: 1, 2: 1, 3: 1, 4: 2, 5: 2}


def elements(dims: Iterable[Dim] | None, sizes: Mapping[str, int]) -> int:
    """Return how many elements a sample has in a tensor; open sizes count as ``sizes`` says, or as OPEN."""
    total = 1
    for dim in dims or ():
        if isinstance(dim, Multiple):
            total *= dim.times
        elif isinstance(dim, int):
            total *= dim
        else:
            total *= sizes.get(dim, OPEN) if dim is not None else OPEN
    return total


def bytes_of(fact: Fact | None, sizes: Mapping[str, int]) -> int:
    """Return the bytes of a sample in a tensor; 0 where nothing is known of it."""
    if fact is None or fact.dims is None:
        return 0
    return elements(fact.dims, sizes) * _WIDTHS.get(fact.dtype, 4)


def operations(node: ir.Node, facts: Mapping[ir.Value, Fact], sizes: Mapping[str, int]) -> int:
    """Return about how many operations a node takes for a sample: products of layers, else one an element."""
    out = elements(_dims(node.outputs[0], facts), sizes) if node.outputs else 0
    if node.domain not in ("", "ai.onnx"):
        return 2 * out
    kernel = _dims(node.inputs[1], facts) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if node.op_type in ("Conv", "ConvInteger") and kernel:
        return 2 * out * elements(kernel[1:], sizes)
    if node.op_type == "ConvTranspose" and kernel and node.inputs[0] is not None:
        return 2 * elements(_dims(node.inputs[0], facts), sizes) * elements(kernel[1:], sizes)
    if node.op_type in ("MatMul", "Gemm", "MatMulInteger") and node.inputs[0] is not None:
        inner = _dims(node.inputs[0], facts)
        return 2 * out * (elements(inner[-1:], sizes) if inner else OPEN)
    if node.op_type in ("LSTM", "GRU", "RNN") and kernel and node.inputs[0] is not None:
        steps = elements((_dims(node.inputs[0], facts) or (1,))[:1], sizes)
        weights = sum(elements(_dims(w, facts), sizes) for w in node.inputs[1:3] if w is not None)
        return 2 * steps * weights
    return out


def _dims(value: ir.Value | None, facts: Mapping[ir.Value, Fact]) -> tuple[Dim, ...] | None:
    if value is None:
        return None
    fact = facts.get(value)
    if fact is not None:
        return fact.dims
    tensor = value.const_value
    return None if tensor is None else tuple(int(dim) for dim in tensor.shape.numpy())


def peak_bytes(nodes: list[ir.Node], facts: Mapping[ir.Value, Fact], sizes: Mapping[str, int]) -> int:
    """Return the most bytes a sample that are alive at once while ``nodes`` run, their outside inputs included."""
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.const_value is None:
                last[value] = index
    inside = {value for node in nodes for value in node.outputs}
    alive = sum(bytes_of(facts.get(value), sizes) for value in last if value not in inside)
    peak, ending = alive, dict[int, list[ir.Value]]()
    for value, index in last.items():
        ending.setdefault(index, []).append(value)
    for index, node in enumerate(nodes):
        alive += sum(bytes_of(facts.get(value), sizes) for value in node.outputs)
        peak = max(peak, alive)
        alive -= sum(bytes_of(facts.get(value), sizes) for value in ending.get(index, ()))
    return peak
