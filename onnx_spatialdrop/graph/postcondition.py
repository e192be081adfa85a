"""What holds after every rewrite, whatever it did: the model's interface, and that what it says is gone is gone.

It reads models and judges. A rewrite that it judges wrong is a fault of this package; so it is looked for in every run,
and not in tests alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

from onnx_spatialdrop.errors import PostconditionError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.prune import is_weight
from onnx_spatialdrop.operator.node import describe

__all__ = ["Interface", "check", "check_proto"]


_CONTROLS: Final = (ir.DataType.BOOL, ir.DataType.INT64)


@dataclass(frozen=True)
class Interface:
    """The names, types and shapes of a model's inputs, weights left out, and outputs; which inputs may leave."""

    inputs: dict[str, str]
    outputs: tuple[tuple[str, str], ...]
    may_leave: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """Return the interface of ``model`` as it is now."""
        inputs = {value.name or "": _signature(value) for value in model.graph.inputs if not is_weight(model, value)}
        outputs = tuple((value.name or "", _signature(value)) for value in model.graph.outputs)
        read = (value for value in model.graph.inputs if value.uses())
        leave = (value.name or "" for value in read if value.dtype in _CONTROLS or _is_number(value.shape))
        return cls(inputs, outputs, frozenset(leave))

    @classmethod
    def of_proto(cls, model: onnx.ModelProto, read: Collection[str]) -> Interface:
        """Return the interface of a model whose nodes read the names ``read``."""
        graph = model.graph
        weights = {tensor.name for tensor in graph.initializer} if model.ir_version < 4 else set[str]()
        inputs = {value.name: _type_of(value) for value in graph.input if value.name not in weights}
        outputs = tuple((value.name, _type_of(value)) for value in graph.output)
        tensors = ((value.name, value.type.tensor_type) for value in graph.input if value.name in read)
        leave = (name for name, held in tensors if held.elem_type in _CONTROLS or _is_one(held))
        return cls(inputs, outputs, frozenset(leave))


def check(model: ir.Model, before: Interface, gone: Iterable[ir.Node] = ()) -> None:
    """Judge a model after a rewrite.

    1. The outputs have the names, types, shapes and order that they had.
    2. So have the inputs, but that one which was read, and may be a switch, mask or ratio, may be gone. A new one is
       read.
    3. None of the nodes ``gone`` is left anywhere.

    Raises:
        PostconditionError: one of these does not hold.
    """
    after = Interface.of(model)
    _compare(before, after)
    for value in model.graph.inputs:
        if value.name not in before.inputs and not value.uses() and not is_weight(model, value):
            raise PostconditionError(f"the input {value.name!r} is new, and nothing reads it")
    left = set(gone)
    for node in scopes.all_nodes(model) if left else ():
        if node in left:
            raise PostconditionError(f"{describe(node)} ({node.op_type}) is still there", node)


def check_proto(model: onnx.ModelProto, before: Interface, lost: Collection[str], read: Counter[str]) -> None:
    """Judge a protobuf that nodes were taken out of.

    Args:
        model: what it is now.
        before: its interface as it was.
        lost: what its main graph's inputs, initializers and nodes no longer give.
        read: how often its main graph's nodes read each name now.

    Raises:
        PostconditionError: an input or output is not what it was, but for switches that are gone; or what a node reads
            or the graph returns is not there.
    """
    _compare(before, Interface.of_proto(model, ()))
    outputs = {value.name for value in model.graph.output}
    for name in lost:
        if read[name] > 0 or name in outputs:
            raise PostconditionError(f"nothing computes {name!r} any more")


def _compare(before: Interface, after: Interface) -> None:
    if after.outputs != before.outputs:
        raise PostconditionError(f"the outputs became {_listed(after.outputs)} from {_listed(before.outputs)}")
    for name, signature in before.inputs.items():
        if name not in after.inputs and name not in before.may_leave:
            raise PostconditionError(f"the input {name!r} is gone")
        if after.inputs.get(name, signature) != signature:
            raise PostconditionError(f"the input {name!r} became {after.inputs[name]} from {signature}")


def _is_number(shape: ir.Shape | None) -> bool:
    return shape is not None and all(size == 1 for size in shape)


def _is_one(tensor: onnx.TypeProto.Tensor) -> bool:
    return bool(tensor.HasField("shape")) and all(dim.dim_value == 1 for dim in tensor.shape.dim)


def _type_of(value: onnx.ValueInfoProto) -> str:
    return str(value.type.SerializeToString(deterministic=True).hex())


def _signature(value: ir.Value) -> str:
    return f"{value.type} {value.shape}"


def _listed(outputs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name!r} ({signature})" for name, signature in outputs)
