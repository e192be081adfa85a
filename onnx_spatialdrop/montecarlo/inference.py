"""Types and sizes of a node's outputs, as onnx's own inference gives them for what is known of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import shape_inference

from onnx_spatialdrop.montecarlo import facts
from onnx_spatialdrop.montecarlo.facts import Fact
from onnx_spatialdrop.operator import node as op

__all__ = ["inferred"]


def inferred(
    node: ir.Node, of: Callable[[ir.Value], Fact], version: int, imports: list[onnx.OperatorSetIdProto]
) -> list[Fact]:
    """Return type and sizes of the outputs as onnx's inference gives them for what is known of the inputs."""
    if op.is_spatial_dropout(node):
        return _dropped(node, of(node.inputs[0]) if node.inputs[0] is not None else Fact())
    blank = [_declared(value) for value in node.outputs]
    if node.op_type == "Constant":
        return blank
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return blank
    names = {value: f"i{index}" for index, value in enumerate(dict.fromkeys(node.inputs)) if value is not None}
    proto = ir.to_proto(node)
    proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
    proto.output[:] = [f"o{index}" for index in range(len(node.outputs))]
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value, name in names.items():
        fact = of(value)
        types[name] = facts.to_type(fact)
        array = _content(fact)
        if array is not None and array.dtype.kind in "biuf":
            data[name] = onnx.numpy_helper.from_array(array, name)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        made = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
    except (onnx.defs.SchemaError, shape_inference.InferenceError, RuntimeError, ValueError, KeyError):
        return blank
    made_facts = [facts.from_type(made[name]) if name in made else Fact() for name in proto.output]
    return [b if m.dtype == 0 and not m.mixed else m for m, b in zip(made_facts, blank, strict=True)]


def _declared(value: ir.Value) -> Fact:
    """Return the type alone that a file gives a value: its sizes may be those of another batch."""
    return Fact(dtype=int(value.dtype) if value.dtype is not None else 0)


def _dropped(node: ir.Node, x: Fact) -> list[Fact]:
    """Return types and sizes of a SpatialDropout node's outputs, whatever its samples are."""
    if x.mixed or x.dims is None:
        return [Fact(x.dtype), Fact(int(ir.DataType.BOOL))]
    shared = {axis % len(x.dims) for axis in op.read(node).axes}
    mask = tuple(1 if index in shared else dim for index, dim in enumerate(x.dims))
    return [Fact(x.dtype, x.dims), Fact(int(ir.DataType.BOOL), mask)]


def _content(fact: Fact) -> npt.NDArray[Any] | None:
    """Return what a small tensor holds, where all of it is known."""
    if fact.array is not None or fact.entries is None or not all(isinstance(entry, int) for entry in fact.entries):
        return fact.array
    array = np.array(fact.entries, np.int64)
    return array.reshape(()) if fact.dims == () else array
