"""Find what this package wrote out of SpatialDropout nodes where a tool has stripped the tags: by running it.

The multipliers of Philox give the draw away. What is drawn is then computed on a small input, and compared bit by bit
with the definition; so nothing depends on how optimisers rewrote the nodes in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import recover
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants, array_of, dtype_of
from onnx_spatialdrop.graph.inferred import Inferred
from onnx_spatialdrop.operator import philox, spec
from onnx_spatialdrop.operator.node import describe
from onnx_spatialdrop.operator.reference import dropout_mask
from onnx_spatialdrop.passes.fuse.replay import Replay
from onnx_spatialdrop.passes.fuse.report import Record
from onnx_spatialdrop.passes.fuse.tagged import ExpandedRegion

__all__ = ["MARKS", "idle_products", "untagged_regions"]

#: A multiplier of Philox in the bytes of a file, as raw data and as a number: where neither is, there is nothing to do.
MARKS: Final = (bytes([0x53, 0x1F, 0x51, 0xD2]), bytes([0xD3, 0xBE, 0xC4, 0x92]))

_WORD: Final = 1 << 32
_CUTS: Final = frozenset({"Gather", "Identity", "Reshape", "Split", "Slice"})
_STEPS: Final = (5, 6, 7)
#: Between a mask's product and X stand a scale and its switch.
_PEEL: Final = 4


def untagged_regions(model: ir.Model) -> tuple[list[ExpandedRegion], list[Record]]:
    """Return the regions that draw what the definition says, and records of what looks like one and was not proven."""
    regions, refused = [], []
    shapes: Shapes | None = None
    constants = Constants()
    for product, rounds in _products(model.graph):
        off = _chosen(product, constants) is not None
        shapes = shapes or Shapes(constants, Inferred(model))
        region = None if off else _proven(model, product, shapes)
        if region is not None:
            regions.append(region)
            continue
        name, nodes = product.name or describe(product), (product.name or "", *(node.name or "" for node in rounds[:1]))
        reason = "computes Philox4x32-10 without the tags of expand, and its draw could not be verified"
        notes = ("expand again from the model with SpatialDropout nodes, and fuse before other tools",)
        if off:
            reason = "draws the bits of a SpatialDropout node, but is switched off for good"
        refused.append(Record(name=name, kind="unknown", nodes=nodes, reason=reason, notes=() if off else notes))
    return regions, refused


def idle_products(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """Return the products of draws that are switched off for good, and what each passes on."""
    constants = Constants()
    found = ((product, _chosen(product, constants)) for product, _ in _products(model.graph))
    return [(product, _unscaled(value, constants)) for product, value in found if value is not None]


def _unscaled(value: ir.Value, constants: Constants) -> ir.Value:
    """Return what a multiplication by 1 was made of, which is the scale of a draw that is off; else the value."""
    node = value.producer()
    if node is None or node.op_type != "Mul" or node.domain:
        return value
    for factor, rest in zip(node.inputs, reversed(node.inputs), strict=True):
        number = constants.number(factor)
        if number is not None and number == 1 and rest is not None:
            return rest
    return value


def _chosen(product: ir.Node, constants: Constants) -> ir.Value | None:
    """Return the branch that a Where of a constant condition always takes."""
    condition = constants.number(product.inputs[0]) if product.op_type == "Where" else None
    if condition is None and product.op_type == "Where":
        condition = _of_branch(product.inputs[0], constants)
    return None if condition is None else product.inputs[1 if condition else 2]


def _of_branch(value: ir.Value | None, constants: Constants) -> np.generic | None:
    """Return the one number of a value that is cut out of what an If of a constant condition returns."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _CUTS and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    if node is None or value is None or node.op_type != "If":
        return None
    condition = constants.number(node.inputs[0])
    branch = node.attributes.get("then_branch" if condition else "else_branch")
    if condition is None or branch is None:
        return None
    return constants.number(branch.as_graph().outputs[value.index() or 0])


def _products(graph: ir.Graph) -> Iterator[tuple[ir.Node, list[ir.Node]]]:
    """Yield the nodes where what Philox drew meets data, each with the multiplications that it comes from."""
    multiplying = [node for node in graph if _multiplies(node) or _holds_multiplication(node)]
    found: dict[ir.Node, list[ir.Node]] = {}
    seen = set(multiplying)
    stack = [(node, node) for node in reversed(multiplying)]
    while stack:
        node, origin = stack.pop()
        for use in (use for output in node.outputs for use in output.uses()):
            reader = use.node
            if reader in seen or reader.graph is not graph:
                continue
            seen.add(reader)
            if reader.op_type in ("Where", "Mul") and _meets_data(reader, seen):
                found.setdefault(reader, []).append(origin)
            else:
                stack.append((reader, origin))
    yield from found.items()


def _multiplies(node: ir.Node) -> bool:
    return node.op_type in ("Mul", "MatMul") and any(_has_multiplier(value) for value in node.inputs)


def _holds_multiplication(node: ir.Node) -> bool:
    return any(_multiplies(inner) for graph in scopes.subgraphs(node) for inner in graph.all_nodes())


def _has_multiplier(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    if tensor is not None and (tensor.size > 4 or tensor.dtype not in _INTEGERS):
        return False  # weights, which need not be read for that
    array = array_of(value)
    if array is None or array.size > 4 or array.dtype.kind not in "iu":
        return False
    return any(int(number) % _WORD in philox.MULTIPLIERS for number in array.reshape(-1))


_INTEGERS: Final = (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64)


def _meets_data(node: ir.Node, drawn: set[ir.Node]) -> bool:
    return any(_is_data(value) and value.producer() not in drawn for value in node.inputs if value is not None)


def _is_data(value: ir.Value) -> bool:
    if array_of(value) is not None:
        return False
    dtype = dtype_of(value)
    return dtype is None or dtype in spec.DTYPES.values()


def _proven(model: ir.Model, product: ir.Node, shapes: Shapes) -> ExpandedRegion | None:
    for x in _data(product):
        shape = shapes.known(x)
        if shape is None or not len(shape) or (dtype_of(x) or np.dtype(np.float32)) not in spec.DTYPES.values():
            continue
        for idle, swapped in ((False, False), (False, True), (True, False), (True, True)):
            rerun = Replay.of(model, x, shape, product, idle)
            region = None if rerun is None else _compared(model, product, x, rerun, swapped)
            if region is not None:
                return region
    return None


def _data(product: ir.Node) -> list[ir.Value]:
    """Return what may be X: floating-point inputs, or what scales made them of; the last first."""
    levels: list[ir.Value] = []
    stack = [(value, _PEEL) for value in product.inputs]
    while stack:
        value, depth = stack.pop()
        if value is None or depth == 0 or not _is_data(value):
            continue
        levels.append(value)
        node = value.producer()
        if node is not None and node.op_type in ("Cast", "Mul") and not node.domain:
            stack += [(operand, depth - 1) for operand in node.inputs]
    return levels[::-1]


def _compared(model: ir.Model, product: ir.Node, x: ir.Value, rerun: Replay, swapped: bool) -> ExpandedRegion | None:
    draws = [draw for draw in (rerun(step, swapped=swapped) for step in _STEPS) if draw is not None]
    idle = rerun(_STEPS[0], training=False)
    if len(draws) != len(_STEPS) or idle is None:
        return None
    first, kept = draws[0], [draw.kept for draw in draws]
    off = rerun.training is None or np.array_equal(idle.x, idle.y)
    if (
        not off
        or first.y.shape != first.x.shape
        or first.mask.ndim != first.x.ndim
        or first.kept.all()
        or not first.kept.any()
    ):
        return None
    axes = tuple(axis for axis, size in enumerate(first.mask.shape) if size == 1 != first.x.shape[axis])
    name, y = product.name or product.outputs[0].name or "", product.outputs[0]
    for seed, steps in ((seed, steps) for seed in rerun.seeds() for steps in rerun.steps(_STEPS)):
        ratio = _ratio(first.x.shape, axes, seed, kept, rerun.thresholds(), steps)
        if ratio is None:
            continue
        exact = spec.explicit_scale(ratio, first.x.dtype)
        close = abs(first.scale / exact - 1.0) <= (2.0**-9 if first.x.dtype.itemsize == 2 else 2.0**-22)
        attributes = spec.Attributes(axes, ratio, seed, exact if close else first.scale, where=name)
        nodes, step = tuple(rerun.nodes), rerun.step
        if len(set(steps)) == 1:
            step = ir.Value(name=f"{y.name}/step", const_value=ir.tensor(np.array([steps[0]], np.int64)))
        return ExpandedRegion(name, attributes, model.graph, nodes, x, y, None, rerun.training, step, None, {}, False)
    return None


def _ratio(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    seed: int,
    kept: list[np.ndarray],
    numbers: Iterable[int],
    steps: tuple[int, ...],
) -> float | None:
    """Return the ratio for which the definition draws ``kept`` for the steps; None where there is none."""
    low, high = 1, 1 << 24
    thin = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(len(shape)))
    for step, mask in zip(steps, kept, strict=True):
        size = int(np.prod(spec.mask_shape(shape, axes)))
        words = (philox.words(seed, np.array([step]), size).reshape(-1) >> np.uint64(8)).astype(np.int64)
        narrow = mask[thin].reshape(-1)
        low = max([low, *(words[~narrow] + 1).tolist()])
        high = min([high, *words[narrow].tolist()])
        if low > high:
            return None
    for threshold in numbers:
        if low <= threshold <= high:
            ratio = recover((threshold - 0.5) / 2**24, 2.0**-25)
            masks = [dropout_mask(shape, axes, ratio, seed, step) for step in steps]
            if all(np.array_equal(np.broadcast_to(a, b.shape), b) for a, b in zip(masks, kept, strict=True)):
                return ratio
    return None
