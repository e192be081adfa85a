"""What holds after every rewrite, whatever it did: the model's interface, and that what it says is gone is gone.

It reads models and judges. A rewrite that it judges wrong is a fault of this package; so it is looked for in every run,
and not in tests alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.errors import PostconditionError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.prune import is_weight
from onnx_spatialdrop.operator.node import describe

__all__ = ["Interface", "check"]


_CONTROLS: Final = (ir.DataType.BOOL, ir.DataType.INT64)


@dataclass(frozen=True)
class Interface:
    """The names, types and shapes of a model's inputs, weights left out, and outputs; which inputs may be switches."""

    inputs: dict[str, str]
    outputs: tuple[tuple[str, str], ...]
    may_leave: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """Return the interface of ``model`` as it is now."""
        inputs = {value.name or "": _signature(value) for value in model.graph.inputs if not is_weight(model, value)}
        outputs = tuple((value.name or "", _signature(value)) for value in model.graph.outputs)
        read = (value for value in model.graph.inputs if value.uses() and value.dtype in _CONTROLS)
        return cls(inputs, outputs, frozenset(value.name or "" for value in read))


def check(model: ir.Model, before: Interface, gone: Iterable[ir.Node] = ()) -> None:
    """Judge a model after a rewrite.

    1. The outputs have the names, types, shapes and order that they had.
    2. So have the inputs, but that one which was read, and may be a switch or a mask, may be gone. A new one is read.
    3. None of the nodes ``gone`` is left anywhere.

    Raises:
        PostconditionError: one of these does not hold.
    """
    after = Interface.of(model)
    if after.outputs != before.outputs:
        raise PostconditionError(f"the outputs became {_listed(after.outputs)} from {_listed(before.outputs)}")
    for name, signature in before.inputs.items():
        if name not in after.inputs and name not in before.may_leave:
            raise PostconditionError(f"the input {name!r} is gone")
        if after.inputs.get(name, signature) != signature:
            raise PostconditionError(f"the input {name!r} became {after.inputs[name]} from {signature}")
    for value in model.graph.inputs:
        if value.name not in before.inputs and not value.uses():
            raise PostconditionError(f"the input {value.name!r} is new, and nothing reads it")
    left = set(gone)
    for node in scopes.all_nodes(model) if left else ():
        if node in left:
            raise PostconditionError(f"{describe(node)} ({node.op_type}) is still there", node)


def _signature(value: ir.Value) -> str:
    return f"{value.type} {value.shape}"


def _listed(outputs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name!r} ({signature})" for name, signature in outputs)
