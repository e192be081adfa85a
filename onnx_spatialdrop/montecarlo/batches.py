"""Prepare and cut a model; a batch that was written into the file is opened where that is proven to change nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.montecarlo import plan as plans
from onnx_spatialdrop.montecarlo.facts import Dim, Fact, Multiple, Unproven, product_of
from onnx_spatialdrop.montecarlo.options import Layers
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.prepare import Prepared, prepare
from onnx_spatialdrop.montecarlo.rows import Tracker
from onnx_spatialdrop.montecarlo.view import View

__all__ = ["prepared_plan"]


def prepared_plan(model: ir.Model, layers: Layers = "all", seed: int | None = None, strata: int = 1) -> Plan:
    """Switch dropout on and cut the model, in place.

    A batch of fixed size is opened where all nodes, the prefix's too, treat samples one by one; constant targets of
    Reshape are written anew for that. Where that is not proven the model keeps its batch.

    Raises:
        SpecError: as prepare and plan do.
        FormError: the opset cannot be converted.
    """
    prepared = prepare(model, layers, seed, strata)
    result = plans.plan(prepared)
    size = None if result.batch.shape is None else result.batch.shape[0]
    if isinstance(size, int) and _open(prepared, result.batch, size):
        result = plans.plan(prepared)
    return result


def _open(prepared: Prepared, batch: ir.Value, size: int) -> bool:
    """Open the batch in place; return whether that was proven to be right, and else change nothing."""
    graph = prepared.model.graph
    inputs = [
        v for v in graph.inputs if v is batch or (v.shape is not None and len(v.shape) > 1 and v.shape[0] == size)
    ]
    inputs = [value for value in inputs if value is not prepared.step and value.const_value is None]
    tracker = Tracker(prepared.model.opset_imports)
    for value in graph.inputs:
        fact = plans.input_fact(value)
        if value in inputs and fact.dims is not None:
            fact = Fact(fact.dtype, (Multiple(1), *fact.dims[1:]), 0)
        elif value is prepared.step:
            fact = Fact(int(ir.DataType.INT64), (Multiple(1),), 0)
        tracker.known[value] = fact
    targets: dict[ir.Node, list[int]] = {}
    for node in graph:
        written = _opened_target(tracker, node, size)
        if written is not None:
            targets[node] = written
            tracker.known[node.inputs[1]] = Fact(7, (len(written),), entries=tuple(written))  # type: ignore[index]
        if tracker.step(node, stochastic=True):
            return False
        if written is not None:
            del tracker.known[node.inputs[1]]  # type: ignore[arg-type]
    for value in graph.outputs:
        if tracker.of(value).mixed or tracker.of(value).axis not in (0, None):
            return False
    for node, target in targets.items():
        _write_target(graph, node, target)
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    for value in (*inputs, *(out for out in graph.outputs if tracker.of(out).axis == 0)):
        fact = tracker.of(value)
        value.shape = None if fact.dims is None else ir.Shape([_written(dim) for dim in fact.dims])
    return True


def _written(dim: Dim) -> int | str | None:
    if isinstance(dim, Multiple):
        return "N" if dim.times == 1 else None
    return dim


def _opened_target(tracker: Tracker, node: ir.Node, size: int) -> list[int] | None:
    """Return the target of a Reshape with its number of samples left open; None where there is nothing to open."""
    if (
        node.op_type != "Reshape"
        or node.domain not in ("", "ai.onnx")
        or node.inputs[1] is None
        or node.inputs[0] is None
    ):
        return None
    view = View(node, [tracker.of(node.inputs[0]), tracker.of(node.inputs[1])], 13)
    try:
        axis, block, _ = view.rows()
        target, dims = view.get(1).ints(), view.dims()
    except Unproven:
        return None
    if axis != 0 or not target or target[0] <= 0 or view.get(1).array is None:
        return None
    inner = product_of(dims[1:])
    if inner is None:
        return None
    rest = [dims[i] if d == 0 and i < len(dims) else d for i, d in enumerate(target)][1:]
    known = product_of([dim for dim in rest if dim != -1])
    if not known:
        return None
    if -1 in rest:
        hidden, wrong = divmod(size * block * inner, target[0] * known)
        if wrong:
            return None
        rest = [hidden if dim == -1 else dim for dim in rest]
        known *= hidden
    if not known or target[0] * known != size * block * inner or target[0] % size:
        return None
    return [-1, *(int(dim) for dim in rest if isinstance(dim, int))]


def _write_target(graph: ir.Graph, node: ir.Node, target: list[int]) -> None:
    name = f"{node.outputs[0].name}/open_batch"
    tensor = ir.tensor(np.array(target, np.int64), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape([len(target)]))
    graph.register_initializer(value)
    node.replace_input_with(1, value)
