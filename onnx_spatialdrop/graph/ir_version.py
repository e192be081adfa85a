"""The IR version that a model needs for what was put into it. It changes no node."""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.errors import ModelFileWarning
from onnx_spatialdrop.graph.controls import is_named_switch, is_switch

__all__ = ["list_constants", "raise_ir_version"]

#: The first with inputs that have a default which callers may override; before it an initializer is a constant, and
#: listed as an input all the same.
_DEFAULTS_FROM: Final = 4
_FUNCTIONS_FROM: Final = 8


def list_constants(model: ir.Model, before: Container[str]) -> None:
    """List constants that were put into a model of an IR version before 4 as inputs, as it has to be there, in place.

    Args:
        model: the model.
        before: the names of the initializers that it had.
    """
    if (model.ir_version or _DEFAULTS_FROM) < _DEFAULTS_FROM:
        for name, value in model.graph.initializers.items():
            if name not in before and not value.is_graph_input() and value.const_value is not None:
                value.type, value.shape = (
                    ir.TensorType(value.const_value.dtype),
                    ir.Shape(value.const_value.shape.numpy()),
                )
                model.graph.inputs.append(value)


def raise_ir_version(model: ir.Model) -> None:
    """Raise the IR version to what the model's switches and functions need, in place.

    1. From a version before 4, in which no default can be overridden, to 4 where there is a switch. The inputs that are
       initializers, and constants in such a version, are inputs no more. A ModelFileWarning says so.
    2. To 8 where there are functions.
    """
    old = model.ir_version or _FUNCTIONS_FROM
    switches = [value for value in model.graph.inputs if is_named_switch(value) and is_switch(value)]
    needed = max(_FUNCTIONS_FROM if model.functions else 0, _DEFAULTS_FROM if switches else 0)
    if old >= needed:
        return
    if old < _DEFAULTS_FROM:
        for value in [each for each in model.graph.inputs if is_switch(each) and each not in switches]:
            model.graph.inputs.remove(value)
        message = f"IR version {old} has no inputs that somebody may feed or not: the model has version {needed} now"
        warnings.warn(message, ModelFileWarning, stacklevel=2)
    model.ir_version = needed
