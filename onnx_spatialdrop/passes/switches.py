"""The two inputs that steer SpatialDropout nodes: switches of the whole model, or constants.

A switch is a graph input with a default; it must not become one of a subgraph or a function.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir

__all__ = ["STEP", "TRAINING_MODE", "add_switches", "constant_of", "is_switch", "require"]

TRAINING_MODE: Final = "training_mode"
STEP: Final = "step"


def is_switch(value: ir.Value) -> bool:
    """Return whether ``value`` is a graph input with a default that callers may override."""
    return value.is_graph_input() and value.const_value is not None


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the array that ``value`` always holds, or None; a switch's default is not constant."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def require(graph: ir.Graph, values: Iterable[ir.Value]) -> None:
    """Take the defaults off those of ``values`` that are switches of the main graph, in place: they have to be fed."""
    steering = {id(value) for value in values}
    for value in graph.inputs:
        if id(value) in steering and value.name is not None and graph.initializers.pop(value.name, None) is not None:
            value.const_value = None


def add_switches(graph: ir.Graph, training_mode: bool = False, step: int = -1) -> tuple[ir.Value, ir.Value]:
    """Return the model's switches ``training_mode`` and ``step``, made where they are missing, in place.

    Args:
        graph: the main graph.
        training_mode: default of a switch made here: bool, no dimensions. False: the file is the inference model.
        step: default of a switch made here: int64, shape (1,), declared as ("steps",) so that callers may feed one
            step a sample. -1: a fresh draw every run.

    An input of that name and type with a default is reused. Where the name is taken by something else,
    "spatial_dropout/" is put before it.
    """
    return (
        _switch(graph, TRAINING_MODE, np.array(training_mode), ir.Shape([])),
        _switch(graph, STEP, np.array([step], np.int64), ir.Shape(["steps"])),
    )


def _switch(graph: ir.Graph, name: str, default: np.ndarray, shape: ir.Shape) -> ir.Value:
    tensor = ir.tensor(default, name=name)
    for candidate in (name, f"spatial_dropout/{name}"):
        for value in graph.inputs:
            if value.name == candidate and value.dtype == tensor.dtype and is_switch(value):
                return value
        if not _is_taken(graph, candidate):
            tensor = ir.tensor(default, name=candidate)
            value = ir.Value(name=candidate, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
            graph.inputs.append(value)
            graph.register_initializer(value)
            return value
    raise ValueError(f"the names {name!r} and 'spatial_dropout/{name}' are both taken; rename those values")


def _is_taken(graph: ir.Graph, name: str) -> bool:
    if name in graph.initializers or any(value.name == name for value in graph.inputs):
        return True
    return any(output.name == name for node in graph.all_nodes() for output in node.outputs)
