"""Findings about quantised models: ranges and masks that draws do not fit into. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.check.finding import Finding
from onnx_spatialdrop.passes.check.rules import Rule, Where
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY

__all__ = ["QUANTIZED", "calibrated_off"]

#: Operators whose results have the largest value of what goes in, where that is above 0.
_SAME_LARGEST: Final = frozenset(
    {"Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Resize", "Squeeze", "Transpose", "Unsqueeze"}
)
#: Operators whose range is that of the tensor that they get in this run.
_PER_RUN: Final = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
#: What a file of monte_carlo has that runs several draws at once (see montecarlo/onefile.py).
_TILED: Final = "monte_carlo/chunk_rows"
_FIX: Final = "quantization.quantize_static of the model with nodes"


def calibrated_off(model: ir.Model) -> list[Finding]:
    """Return a finding for nodes, or what expand made of them, whose results are quantised for ranges of dropout off.

    A draw multiplies what it keeps by the node's scale, so the range behind a node is that many times the one before.
    Where it is about the one before at every node, calibration never saw a draw: of few draws, one may drop the
    largest value of one node, and hardly those of all.
    """
    if not any(_is(node, "QuantizeLinear") for node in scopes.all_nodes(model)):
        return []
    working = model.clone()
    try:
        FusePass(elementwise=True).call(working)
    except SpatialDropError:
        return []  # other rules say what is wrong
    constants, growths = Constants(), {}
    for site in scopes.spatial_dropouts(working):
        growth, factor = _growth(site.node, constants)
        if growth > 0 and factor > 1:
            growths[site.node.name or op.describe(site.node)] = growth, factor
    if not growths or any(growth >= 1 + (factor - 1) / 4 for growth, factor in growths.values()):
        return []
    growth, factor = (max(column) for column in zip(*growths.values(), strict=True))
    message = (
        f"what follows is quantised up to {growth:.3g} times the largest value before, and a draw multiplies by "
        f"{factor:.3g}: calibrated while dropout was off, it cuts draws off"
    )
    return [Finding("calibrated-off", tuple(growths), message, _FIX)]


def _growth(node: ir.Node, constants: Constants) -> tuple[float, float]:
    """Return how many times the largest value before a node is held behind it, 0 if unknown, and its scale."""
    largest = _largest(_dequantizer(node.inputs[0]), constants)
    attributes = op.read(node)
    assert node.inputs[0] is not None
    dtype = op.numpy_dtype(node.inputs[0]) or np.dtype(np.float32)
    factor = float(spec.kept_scale(attributes.ratio, attributes.scale, dtype))
    held = min((_largest(after, constants) for after in _quantizers(node.outputs[0])), default=0.0)
    return (held / largest if largest > 0 else 0.0), factor


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that gives ``value``, perhaps in another order."""
    while value is not None and (node := value.producer()) is not None:
        if _is(node, "DequantizeLinear"):
            return node
        if node.domain != "" or node.op_type not in _SAME_LARGEST:
            return None
        value = node.inputs[0]
    return None


def _quantizers(value: ir.Value) -> Iterator[ir.Node]:
    """Return the QuantizeLinear nodes that read ``value``, or it in another order or beside others."""
    pending, seen = [value], {value}
    while pending:
        for user, index in pending.pop().uses():
            if _is(user, "QuantizeLinear") and index == 0:
                yield user
            elif user.domain == "" and (user.op_type == "Concat" or (user.op_type in _SAME_LARGEST and index == 0)):
                fresh = user.outputs[0]
                pending += [] if fresh in seen else [fresh]
                seen.add(fresh)


def _largest(node: ir.Node | None, constants: Constants) -> float:
    """Return the largest number that a quantised tensor holds, by the node that makes or reads it; 0 if unknown."""
    step = constants.number(node.inputs[1]) if node is not None else None
    if node is None or step is None:
        return 0.0
    zero = constants.number(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.uint8(0)
    if zero is None or not np.issubdtype(zero.dtype, np.integer):
        return 0.0
    return (int(np.iinfo(str(zero.dtype)).max) - int(zero)) * float(step)


def _is(node: ir.Node, *op_types: str) -> bool:
    return node.op_type in op_types and node.domain in ("", "com.microsoft")


def _mask(node: ir.Node, _: Where) -> str:
    """ONNX Runtime's quantisers take the product of a mask for an ordinary Mul, and the mask's range for [0, 1]."""
    made = node.inputs[0].producer() if _is(node, "QuantizeLinear") and node.inputs[0] is not None else None
    if made is None or GENERATOR_KEY not in made.metadata_props:
        return ""
    return "quantises a mask: its range was taken while dropout was off, and fuse cannot read it any more"


def _range_of_a_run(node: ir.Node, where: Where) -> str:
    if not _is(node, *_PER_RUN) or node.graph is where.model.graph:
        return ""
    if not any(value.name == _TILED for other in where.model.graph for value in other.outputs):
        return ""
    return "takes its range from several draws at once, so that each draw depends on the others of its run"


QUANTIZED: Final = (
    Rule("quantized-mask", _FIX, _mask),
    Rule("range-of-a-run", "quantise the model first, then monte_carlo(model)", _range_of_a_run),
)
