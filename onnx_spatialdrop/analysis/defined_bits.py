"""Say whether a mask whose generator the file names is the operator's, bit for bit. Reads the trace alone.

onnx/onnx #8161 proposes RandomUniform with ``generator="philox4x32_10"``, ``seed_int64`` and an input ``offset``: key
and counter are those of docs/operator.md, with the offset in the place of the step. A number has the p bits of its
type's significand: (word >> (32 - p)) / 2**p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.prove import Proof
from onnx_spatialdrop.analysis.trace import Trace
from onnx_spatialdrop.analysis.values import Curve
from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.ops import Fact
from onnx_spatialdrop.operator.node import describe

__all__ = ["DefinedBits", "bits_of"]

_WORD_BITS: Final = 24
#: Comparisons of a draw with a number that are false, or true, where both are equal and where the draw is less.
_BELOW: Final = frozenset({("GreaterOrEqual", 0), ("Less", 0), ("LessOrEqual", 1), ("Greater", 1)})
_COMPARISONS: Final = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


@dataclass(frozen=True)
class DefinedBits:
    """What a SpatialDropout node needs to draw the same mask.

    Attributes:
        seed: its seed.
        step: the value that is its step; None for step 0.
        threshold: T of the definition, the least word >> 8 that is kept.
    """

    seed: int
    step: ir.Value | None
    threshold: int

    def ratio(self, recovered: float) -> float:
        """Return the ratio that gives the threshold: ``recovered``, if it does."""
        if math.ceil(float(np.float32(recovered)) * 2**_WORD_BITS) == self.threshold:
            return recovered
        return self.threshold / 2**_WORD_BITS


def bits_of(trace: Trace, proofs: Sequence[Proof], constants: Constants) -> DefinedBits | str:
    """Return the bits of a dropout that was proven and whose source is ``defined``, or why they are not ours."""
    node = trace.source.node
    (draw,) = trace.source.abstracts.values()
    if not isinstance(draw, Curve) or draw.dtype == np.float64:
        return f"{describe(node)} draws doubles, of two words each"
    if node.attributes.get_float("low", 0.0) != 0.0 or node.attributes.get_float("high", 1.0) != 1.0:
        return f"{describe(node)} draws from another range than [0, 1)"
    step = _offset(node)
    fixed = constants.number(step)
    if fixed is not None and int(fixed) < 0:
        return f"the offset of {describe(node)} is negative, which asks SpatialDropout for a fresh draw"
    for product in (trace.products[proof.y] for proof in proofs):
        if product.factor[0]:
            return f"{describe(node)} keeps the numbers below the threshold, and SpatialDropout those above"
        if any(kind != "Reshape" for kind, *_ in product.layout.view):
            return f"the numbers of {describe(node)} stand in another order in the mask"
    thresholds = {_threshold(reader, trace, draw, constants) for reader in _readers(trace)}
    threshold = thresholds.pop() if len(thresholds) == 1 else None
    if threshold is None or not 0 < threshold < 2**_WORD_BITS:
        return f"the numbers of {describe(node)} are computed with before a threshold cuts them"
    return DefinedBits(node.attributes.get_int("seed_int64"), step, threshold)


def _offset(node: ir.Node) -> ir.Value | None:
    place = 0 if node.op_type == "RandomUniform" else 1
    return node.inputs[place] if len(node.inputs) > place else None


def _readers(trace: Trace) -> list[ir.Node]:
    """Return the nodes that do more with the draw than rearrange it."""
    return [
        node
        for node in trace.nodes[1:]
        if any(isinstance(trace.abstracts.get(value), Curve) for value in node.inputs if value is not None)
        and not ops.has(node, Fact.VIEW)
    ]


def _threshold(node: ir.Node, trace: Trace, draw: Curve, constants: Constants) -> int | None:
    """Return T where ``node`` compares the draw with a number; None where it does something else."""
    if node.op_type not in _COMPARISONS or node.domain:
        return None
    place = next(i for i, value in enumerate(node.inputs) if value is not None and value in trace.abstracts)
    number = constants.number(node.inputs[1 - place])
    if number is None:
        return None
    precision = _significand(draw.dtype)
    scaled = math.ldexp(float(number), precision)  # exact
    least = math.ceil(scaled) if (node.op_type, place) in _BELOW else math.floor(scaled) + 1
    return least << (_WORD_BITS - precision)


def _significand(dtype: np.dtype[Any]) -> int:
    finfo: Any = ml_dtypes.finfo
    return int(finfo(dtype).nmant) + 1
