"""Functions made ready to be written out many times: what is the same in every call is worked out once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import fold

__all__ = ["Instruction", "Routine", "routines"]


class Instruction(NamedTuple):
    """A node of a function.

    Attributes:
        op_type: its operator, or the function that it calls.
        function: whether it calls one.
        inputs: the places of what it reads; see Routine.
        outputs: the names of what it computes.
        attributes: each with its name, and what it takes from the call of its own function: a name, or None.
    """

    op_type: str
    function: bool
    inputs: tuple[int, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, ir.Attr, str | None], ...]

    def given(self, call: dict[str, ir.Attr]) -> dict[str, ir.Attr]:
        """Return the attributes, where those of the function's own ``call`` are known."""
        return {
            name: attr if taken is None else ir.Attr(name, call[taken].type, call[taken].value)
            for name, attr, taken in self.attributes
        }


class Routine(NamedTuple):
    """A function. Its values have places: inputs first, then constants, then what its steps compute, in their order.

    Attributes:
        name: its name.
        constants: the constants that no call changes.
        steps: its other nodes.
        outputs: the places of its outputs.
    """

    name: str
    constants: list[npt.NDArray[Any]]
    steps: list[Instruction]
    outputs: tuple[int, ...]


def routines(functions: list[ir.Function]) -> list[Routine]:
    """Return each function as a routine."""
    return [_routine(function) for function in functions]


def _routine(function: ir.Function) -> Routine:
    constants, others = list[npt.NDArray[Any]](), list[ir.Node]()
    places = {id(value): place for place, value in enumerate(function.inputs)}
    for node in function:
        if node.op_type == "Constant" and not any(attr.is_ref() for attr in node.attributes.values()):
            places[id(node.outputs[0])] = len(places)
            constants.append(np.asarray(fold.constant_array(dict(node.attributes))))
        else:
            others.append(node)
    steps = list[Instruction]()
    for node in others:
        inputs = tuple(places[id(value)] for value in node.inputs if value is not None)
        for value in node.outputs:
            places[id(value)] = len(places)
        names = tuple(value.name or "" for value in node.outputs)
        attributes = tuple(map(_attribute, node.attributes.values()))
        steps.append(Instruction(node.op_type, node.domain == spec.DOMAIN, inputs, names, attributes))
    return Routine(function.name, constants, steps, tuple(places[id(value)] for value in function.outputs))


def _attribute(attribute: ir.Attr) -> tuple[str, ir.Attr, str | None]:
    """Return an attribute with its name; where it is a reference, with what it refers to."""
    if attribute.is_ref():
        return attribute.name, attribute, attribute.ref_attr_name or ""
    return attribute.name, ir.Attr(attribute.name, attribute.type, attribute.value), None
