"""Clean up after SpatialDropout nodes: what fed only them, and what only they needed. Touches nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_spatialdrop.graph import controls, replace, scopes
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body

__all__ = ["drop_domain", "is_weight", "prune_unused"]


def prune_unused(model: ir.Model, values: Iterable[ir.Value | None]) -> None:
    """Delete those of ``values`` that nothing uses any more, in place.

    1. An initializer goes; so does an input of the main graph, with its default.
    2. An input of a function goes, and the argument at every call with it.
    3. A value computed for nobody takes the nodes along that computed it, back to what is still used; graph inputs
       found on that way stay, since they are part of the caller's interface, but for the model's switches.
       Before IR version 4 every initializer is listed as an input, and is none.
    4. An input of a Loop or Scan body stays: its position has a meaning.
    """
    functions = {id(function.graph): function for function in model.functions.values()}
    pending = {value: True for value in values if value is not None}
    while pending:
        # In waves, each value once: asking for the uses of a constant that thousands of nodes read takes time.
        wave, pending = pending, dict[ir.Value, bool]()
        for value, direct in wave.items():
            for source, is_direct in _prune(model, value, direct, functions):
                pending[source] = is_direct or pending.get(source, False)


def is_weight(model: ir.Model, value: ir.Value) -> bool:
    """Return whether an input of the main graph is a weight: before IR version 4, where it has a default."""
    return model.ir_version < 4 and value.name in model.graph.initializers


def _prune(
    model: ir.Model, value: ir.Value, direct: bool, functions: dict[int, ir.Function]
) -> list[tuple[ir.Value, bool]]:
    """Delete one value if nothing uses it; return what may have become unused by that."""
    if value.uses() or value.is_graph_output():
        return []
    producer = value.producer()
    if producer is not None:
        if producer.graph is None or any(out.uses() or out.is_graph_output() for out in producer.outputs):
            return []
        sources = [(source, False) for source in producer.inputs if source is not None]
        sources += [(source, False) for source in dict.fromkeys(scopes.captured(producer))]
        replace.remove(producer)
        return sources
    if not value.is_graph_input():
        if value.graph is not None and value.name is not None:
            value.graph.initializers.pop(value.name, None)
    elif value.graph is model.graph and (direct or controls.is_named_switch(value) or is_weight(model, value)):
        model.graph.inputs.remove(value)
        model.graph.initializers.pop(value.name or "", None)
    elif id(value.graph) in functions:
        return [(argument, direct) for argument in _drop_parameter(model, functions[id(value.graph)], value)]
    return []


def _drop_parameter(model: ir.Model, function: ir.Function, parameter: ir.Value) -> list[ir.Value]:
    index = list(function.inputs).index(parameter)
    function.inputs.pop(index)
    dropped: list[ir.Value | None] = []
    for node in scopes.all_nodes(model):
        if node.op_identifier() == function.identifier() and len(node.inputs) > index:
            arguments = list(node.inputs)
            dropped.append(arguments.pop(index))
            for position, argument in enumerate(arguments):
                node.replace_input_with(position, argument)
            node.resize_inputs(len(arguments))
    return [argument for argument in dropped if argument is not None]


def drop_domain(model: ir.Model) -> None:
    """Delete the operator's functions where no node calls them, and its domain's imports where nothing needs them."""
    called = {id(scope): {node.op_identifier() for node in scope.all_nodes()} for scope in scopes.scopes(model)}
    if not any((spec.DOMAIN, spec.OP_TYPE, "") in each for each in called.values()):
        for key, function in list(model.functions.items()):
            if function.domain == spec.DOMAIN and function.name in body.OWN_FUNCTIONS:
                del model.functions[key]
    for scope in scopes.scopes(model):
        needed = any(domain == spec.DOMAIN for domain, _, _ in called[id(scope)])
        if scope is model.graph:
            needed = needed or any(function.domain == spec.DOMAIN for function in model.functions.values())
        if not needed:
            scope.opset_imports.pop(spec.DOMAIN, None)
