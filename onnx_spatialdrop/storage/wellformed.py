"""Refuse a protobuf that parses and is no model: what every pass takes for granted is checked once, here.

Nothing is judged that ONNX leaves to runtimes: operators, versions and shapes may be new or unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage.wellformed_values import (
    MalformedError,
    refuse_attribute,
    refuse_tensor,
    refuse_type,
    text,
)

__all__ = ["refuse_malformed"]

#: Domains whose attributes passes read; others may keep bytes in strings, and so may Constant, whose they are data.
_OURS = ("", "ai.onnx", "onnx_spatialdrop")
#: The names of the graphs around a graph; not one set, or a thousand subgraphs would copy the names a thousand times.
_Outer = tuple[set[str], ...]


def refuse_malformed(model: onnx.ModelProto, where: str) -> None:
    """Raise for a model that breaks the rules of ONNX's graphs.

    1. Names are UTF-8, and so are strings that configure an operator of ONNX or ours. No input, initializer or node
       output is defined twice in one graph; graph outputs and what nodes read are defined there or around it, and
       nodes stand in topological order, so that there are no cycles.
    2. Attributes and element types are of kinds that ONNX has, and a tensor holds as many elements as its dims say.
    3. No function is defined twice or calls itself, directly or not; no operator set is imported in two versions.

    Args:
        model: the model; external data is not looked at.
        where: who asks, for error messages.

    Raises:
        ModelFileError: naming the first thing that is wrong.
    """
    try:
        _imports(model.opset_import)
        _graph(model.graph, ())
        _functions(model)
    except MalformedError as error:
        raise ModelFileError(f"{where}: is not a valid ONNX model: {error}") from None
    except RecursionError:
        raise ModelFileError(f"{where}: its graphs are nested too deeply") from None


def _imports(imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if text(entry.domain) == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise MalformedError(
                f"it imports {domain or 'ai.onnx'!r} in the versions {versions[domain]} and {entry.version}"
            )
        if entry.version < 1:
            raise MalformedError(f"it imports version {entry.version} of {domain or 'ai.onnx'!r}")


def _known(name: str, defined: set[str], outer: _Outer) -> bool:
    return name in defined or any(name in names for names in outer)


def _graph(graph: GraphProto, outer: _Outer) -> None:
    defined = set[str]()
    text(graph.name)
    for value in graph.input:
        _define(value.name, defined, "an input")
        refuse_type(value)
    initializers = set[str]()
    for tensor in graph.initializer:
        refuse_tensor(tensor, f"initializer {text(tensor.name)!r}")
        if not tensor.name:
            raise MalformedError("an initializer has no name")
        if tensor.name not in defined:
            _define(tensor.name, defined, "an initializer")
        elif tensor.name in initializers:
            raise MalformedError(f"initializer {tensor.name!r} is there twice")
        initializers.add(tensor.name)
    _nodes(graph.node, defined, outer)
    for value in graph.output:
        refuse_type(value)
        if not _known(text(value.name), defined, outer):
            raise MalformedError(f"nothing computes the output {value.name!r}")
    for value in graph.value_info:
        text(value.name)
        refuse_type(value)


def _nodes(nodes: Iterable[NodeProto], defined: set[str], outer: _Outer) -> None:
    for node in nodes:
        if not (type(node.name) is type(node.op_type) is type(node.domain) is type(node.overload) is str):
            raise MalformedError(f"a name of {_named(node)} is not UTF-8")
        if not node.op_type:
            raise MalformedError(f"{_named(node)} is of no operator")
        for name in node.input:
            if name and not _known(name, defined, outer):
                text(name)
                raise MalformedError(f"{_named(node)} reads {name!r}, which nothing before it computes")
        if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
            raise MalformedError(f"{_named(node)} has an attribute twice")
        if len({entry.key for entry in node.metadata_props}) < len(node.metadata_props):
            raise MalformedError(f"{_named(node)} has an entry of its metadata_props twice")
        for attribute in node.attribute:
            _attribute(attribute, node, defined, outer)
        if any(not each.configuration_id for each in node.device_configurations):
            raise MalformedError(f"{_named(node)} has a device configuration without a name")
        for name in node.output:
            if name:
                _define(name, defined, _named(node))


def _define(name: str, defined: set[str], by: str) -> None:
    if name in defined:  # a subgraph's names may hide those around it: runtimes take that
        raise MalformedError(f"{by} defines {name!r}, which is defined already")
    defined.add(text(name))


def _named(node: NodeProto) -> str:
    return f"node {node.name!r}" if node.name else f"the {node.op_type} node of {(*node.output, '')[0]!r}"


def _attribute(attribute: AttributeProto, node: NodeProto, defined: set[str], outer: _Outer) -> None:
    refuse_attribute(attribute, _named(node))
    if attribute.type == AttributeProto.STRING and node.domain in _OURS and node.op_type != "Constant":
        try:
            attribute.s.decode()
        except UnicodeDecodeError:
            raise MalformedError(f"attribute {attribute.name!r} of {_named(node)} is not UTF-8") from None
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            _graph(graph, (*outer, defined))


def _functions(model: onnx.ModelProto) -> None:
    functions: dict[tuple[str, str, str], FunctionProto] = {}
    for function in model.functions:
        key = (text(function.domain), text(function.name), text(function.overload))
        if key in functions:
            raise MalformedError(f"the function {function.domain}::{function.name} is there twice")
        functions[key] = function
        _imports(function.opset_import)
        defined = set[str]()
        for name in function.input:
            _define(name, defined, "an input")
        _nodes(function.node, defined, ())
        for name in function.output:
            if text(name) not in defined:
                raise MalformedError(f"nothing in function {function.domain}::{function.name} computes {name!r}")
    _no_recursion(functions)


def _no_recursion(functions: dict[tuple[str, str, str], FunctionProto]) -> None:
    """Find a function that calls itself, with a stack of our own: chains of calls may be long."""
    done = set[tuple[str, str, str]]()
    for start in functions:
        path: list[tuple[tuple[str, str, str], Iterator[tuple[str, str, str]]]] = [(start, _calls(functions, start))]
        active = {start}
        while path:
            key, calls = path[-1]
            called = next((other for other in calls if other not in done), None)
            if called is None:
                done.add(key)
                active.discard(key)
                path.pop()
            elif called in active:
                raise MalformedError(f"the function {called[0]}::{called[1]} calls itself")
            else:
                active.add(called)
                path.append((called, _calls(functions, called)))


def _calls(
    functions: dict[tuple[str, str, str], FunctionProto], key: tuple[str, str, str]
) -> Iterator[tuple[str, str, str]]:
    pending: list[Iterable[NodeProto]] = [functions[key].node]
    while pending:
        for node in pending.pop():
            called = (node.domain, node.op_type, node.overload)
            if called in functions:
                yield called
            for attribute in node.attribute:
                pending += (
                    [graph.node for graph in (attribute.g, *attribute.graphs)] if attribute.type in (5, 10) else []
                )
