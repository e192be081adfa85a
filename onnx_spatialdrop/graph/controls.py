"""The control inputs of SpatialDropout nodes: switches of the whole model, or constants.

A switch is a graph input with a default; it must not become one of a subgraph or a function.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir

__all__ = [
    "STEP",
    "TRAINING_MODE",
    "add_step",
    "add_switches",
    "add_training_mode",
    "behind",
    "constant_of",
    "fix",
    "is_named_switch",
    "is_switch",
    "names_of",
    "require",
    "single",
    "switch_names",
]

TRAINING_MODE: Final = "training_mode"
STEP: Final = "step"
_PREFIX: Final = "spatial_dropout/"


def is_switch(value: ir.Value) -> bool:
    """Return whether ``value`` is a graph input with a default that callers may override."""
    return value.is_graph_input() and value.const_value is not None


def is_named_switch(value: ir.Value) -> bool:
    """Return whether ``value`` is a graph input with the name and type of a switch, with a default or without."""
    return value.is_graph_input() and value.dtype is not None and (value.name or "") in switch_names(value.dtype)


def switch_names(dtype: int) -> tuple[str, ...]:
    """Return what a switch of a type may be called, which is given by its number in ONNX; nothing for other types."""
    name = {int(ir.DataType.BOOL): TRAINING_MODE, int(ir.DataType.INT64): STEP}.get(int(dtype))
    return () if name is None else names_of(name)


def names_of(name: str) -> tuple[str, str]:
    """Return what the switch TRAINING_MODE or STEP may be called in a model."""
    return name, f"{_PREFIX}{name}"


def behind(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    """Return the graph inputs among ``values``, and the switches that others of them are computed from, each once."""
    found: dict[ir.Value, None] = {}
    pending = [(value, True) for value in values if value is not None]
    seen = {value for value, _ in pending}
    while pending:
        value, direct = pending.pop()
        if value.is_graph_input():
            if direct or is_named_switch(value):
                found[value] = None
            continue
        producer = value.producer()
        for source in producer.inputs if producer is not None else ():
            if source is not None and source not in seen:
                seen.add(source)
                pending.append((source, False))
    return list(found)


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the array that ``value`` always holds, or None; a switch's default is not constant."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def fix(graph: ir.Graph, switch: ir.Value, array: np.ndarray) -> None:
    """Make a switch of the main graph a constant, in place."""
    if switch.is_graph_input():
        graph.inputs.remove(switch)
    graph.initializers.pop(switch.name or "", None)
    switch.const_value = ir.tensor(array, name=switch.name)
    switch.shape = ir.Shape(array.shape)
    graph.register_initializer(switch)


def require(graph: ir.Graph, values: Iterable[ir.Value]) -> None:
    """Take the defaults off the switches of the main graph that ``values`` follow, in place: they have to be fed."""
    controls = {id(value) for value in behind(values)}
    for value in graph.inputs:
        if id(value) in controls and value.name is not None and graph.initializers.pop(value.name, None) is not None:
            value.const_value = None


def single(graph: ir.Graph, values: Iterable[ir.Value]) -> None:
    """Declare that steps of the main graph that ``values`` follow have one element, where that is open, in place."""
    controls = {id(value) for value in behind(values)}
    for value in graph.inputs:
        if id(value) in controls and value.dtype == ir.DataType.INT64:
            dims = None if value.shape is None else tuple(value.shape)
            if dims is None or (len(dims) == 1 and not isinstance(dims[0], int)):
                value.shape = ir.Shape([1])


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
    return add_training_mode(graph, training_mode), add_step(graph, step)


def add_training_mode(graph: ir.Graph, default: bool = False) -> ir.Value:
    """Return the model's switch ``training_mode`` as add_switches does, made where it is missing, in place."""
    return _switch(graph, TRAINING_MODE, np.array(default), ir.Shape([]))


def add_step(graph: ir.Graph, default: int = -1) -> ir.Value:
    """Return the model's switch ``step`` as add_switches does, made where it is missing, in place."""
    return _switch(graph, STEP, np.array([default], np.int64), ir.Shape(["steps"]))


def _switch(graph: ir.Graph, name: str, default: np.ndarray, shape: ir.Shape) -> ir.Value:
    tensor = ir.tensor(default, name=name)
    for candidate in names_of(name):
        for value in graph.inputs:
            if value.name == candidate and value.dtype == tensor.dtype and is_switch(value):
                return value
        if not _is_taken(graph, candidate):
            tensor = ir.tensor(default, name=candidate)
            value = ir.Value(name=candidate, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
            graph.inputs.append(value)
            graph.register_initializer(value)
            return value
    raise ValueError(f"the names {name!r} and '{_PREFIX}{name}' are both taken; rename those values")


def _is_taken(graph: ir.Graph, name: str) -> bool:
    if name in graph.initializers or any(value.name == name for value in graph.inputs):
        return True
    return any(output.name == name for node in graph.all_nodes() for output in node.outputs)
