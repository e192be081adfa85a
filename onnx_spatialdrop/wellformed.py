"""Refuse a protobuf that parses and is no model: what every pass takes for granted is checked once, here.

Nothing is judged that ONNX leaves to runtimes: operators, versions and shapes may be new or unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from onnx_spatialdrop.errors import ModelFileError

__all__ = ["refuse_malformed"]

_ELEMENTS: Final = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_ATTRIBUTES: Final = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}
#: The field of an attribute that holds a value of each type, and those that any attribute may have.
_HELD_IN: Final = {
    number: {"STRING": "s", "TENSOR": "t", "GRAPH": "g", "TYPE_PROTO": "tp", "FLOAT": "f", "INT": "i"}.get(
        name, name.lower()
    )
    for name, number in AttributeProto.AttributeType.items()
}
_BESIDE: Final = frozenset({"name", "ref_attr_name", "doc_string", "type"})
#: Bits of an element in raw_data; 8 times the itemsize for all others.
_BITS: Final = {
    number: bits
    for bits, names in {
        2: ("INT2", "UINT2"),
        4: ("INT4", "UINT4", "FLOAT4E2M1"),
        8: ("INT8", "UINT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"),
        16: ("INT16", "UINT16", "FLOAT16", "BFLOAT16"),
        32: ("INT32", "UINT32", "FLOAT"),
        64: ("INT64", "UINT64", "DOUBLE", "COMPLEX64"),
        128: ("COMPLEX128",),
    }.items()
    for name, number in TensorProto.DataType.items()
    if name in names
}
_TYPED: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_LARGEST: Final = 2**63 - 1

#: The names of the graphs around a graph; not one set, or a thousand subgraphs would copy the names a thousand times.
_Outer = tuple[set[str], ...]


def refuse_malformed(model: onnx.ModelProto, where: str) -> None:
    """Raise for a model that breaks the rules of ONNX's graphs.

    1. Names are UTF-8. No input, initializer or node output is defined twice in one graph; graph outputs and what nodes
       read are defined there or around it, and nodes stand in topological order, so that there are no cycles.
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
    except _MalformedError as error:
        raise ModelFileError(f"{where}: is not a valid ONNX model: {error}") from None
    except RecursionError:
        raise ModelFileError(f"{where}: its graphs are nested too deeply") from None


class _MalformedError(Exception):
    """What is wrong, in words."""


def _imports(imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if _text(entry.domain) == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise _MalformedError(
                f"it imports {domain or 'ai.onnx'!r} in the versions {versions[domain]} and {entry.version}"
            )
        if entry.version < 1:
            raise _MalformedError(f"it imports version {entry.version} of {domain or 'ai.onnx'!r}")


def _known(name: str, defined: set[str], outer: _Outer) -> bool:
    return name in defined or any(name in names for names in outer)


def _text(name: str) -> str:
    if not isinstance(name, str):  # protobuf gives bytes then
        raise _MalformedError(f"the name {name!r} is not UTF-8")
    return name


def _graph(graph: GraphProto, outer: _Outer) -> None:
    defined = set[str]()
    _text(graph.name)
    for value in graph.input:
        _define(value.name, defined, "an input")
        _type(value)
    initializers = set[str]()
    for tensor in graph.initializer:
        _tensor(tensor, f"initializer {_text(tensor.name)!r}")
        if not tensor.name:
            raise _MalformedError("an initializer has no name")
        if tensor.name not in defined:
            _define(tensor.name, defined, "an initializer")
        elif tensor.name in initializers:
            raise _MalformedError(f"initializer {tensor.name!r} is there twice")
        initializers.add(tensor.name)
    _nodes(graph.node, defined, outer)
    for value in graph.output:
        _type(value)
        if not _known(_text(value.name), defined, outer):
            raise _MalformedError(f"nothing computes the output {value.name!r}")
    for value in graph.value_info:
        _text(value.name)
        _type(value)


def _nodes(nodes: Iterable[NodeProto], defined: set[str], outer: _Outer) -> None:
    for node in nodes:
        if not (type(node.name) is type(node.op_type) is type(node.domain) is type(node.overload) is str):
            raise _MalformedError(f"a name of {_named(node)} is not UTF-8")
        for name in node.input:
            if name and not _known(name, defined, outer):
                _text(name)
                raise _MalformedError(f"{_named(node)} reads {name!r}, which nothing before it computes")
        if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
            raise _MalformedError(f"{_named(node)} has an attribute twice")
        if len({entry.key for entry in node.metadata_props}) < len(node.metadata_props):
            raise _MalformedError(f"{_named(node)} has an entry of its metadata_props twice")
        for attribute in node.attribute:
            _attribute(attribute, node, defined, outer)
        if any(not each.configuration_id for each in node.device_configurations):
            raise _MalformedError(f"{_named(node)} has a device configuration without a name")
        for name in node.output:
            if name:
                _define(name, defined, _named(node))


def _define(name: str, defined: set[str], by: str) -> None:
    if name in defined:  # a subgraph's names may hide those around it: runtimes take that
        raise _MalformedError(f"{by} defines {name!r}, which is defined already")
    defined.add(_text(name))


def _named(node: NodeProto) -> str:
    return f"node {node.name!r}" if node.name else f"the {node.op_type} node of {(*node.output, '')[0]!r}"


def _attribute(attribute: AttributeProto, node: NodeProto, defined: set[str], outer: _Outer) -> None:
    if not _text(attribute.name):
        raise _MalformedError(f"{_named(node)} has an attribute without a name")
    if attribute.type not in _ATTRIBUTES:
        raise _MalformedError(f"attribute {attribute.name!r} of {_named(node)} has no type")
    held = {field.name for field, _ in attribute.ListFields()} - _BESIDE
    expected = set() if attribute.ref_attr_name else {_HELD_IN[attribute.type]}
    if not held <= expected:
        stray = sorted(held - expected)[0]
        raise _MalformedError(f"attribute {attribute.name!r} of {_named(node)} is not of the type of its {stray!r}")
    if attribute.ref_attr_name:
        _text(attribute.ref_attr_name)
        return
    if attribute.type in (AttributeProto.TENSOR, AttributeProto.TENSORS):
        tensors = [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
        for tensor in tensors:
            _tensor(tensor, f"attribute {attribute.name!r} of {_named(node)}")
    elif attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            _graph(graph, (*outer, defined))


def _type(value: onnx.ValueInfoProto) -> None:
    found: Any = value.type
    while found is not None:
        kind = found.WhichOneof("value")
        held: Any = getattr(found, kind) if kind else None
        found = held.elem_type if kind in ("sequence_type", "optional_type") else None
        element = held.elem_type if kind in ("tensor_type", "sparse_tensor_type") else 0
        if element and element not in _ELEMENTS:
            raise _MalformedError(f"value {value.name!r} has elements of the unknown type {element}")


def _tensor(tensor: TensorProto, what: str) -> None:
    if tensor.data_type not in _ELEMENTS:
        raise _MalformedError(f"{what} has elements of the unknown type {tensor.data_type}")
    if any(dim < 0 for dim in tensor.dims):
        raise _MalformedError(f"{what} has the dims {list(tensor.dims)}")
    count = math.prod(tensor.dims)
    bits = _BITS.get(tensor.data_type, 64)
    if count * bits > 8 * _LARGEST:
        raise _MalformedError(f"{what} has the dims {list(tensor.dims)}, which no memory holds")
    if tensor.data_location == TensorProto.EXTERNAL:
        _place(tensor, what)
        return
    if tensor.HasField("raw_data"):
        held, needed, unit = len(tensor.raw_data), -(-count * bits // 8), "bytes"
    else:
        held, needed, unit = sum(len(getattr(tensor, field)) for field in _TYPED), _entries(tensor, count), "entries"
    if held != needed:
        raise _MalformedError(f"{what} has the dims {list(tensor.dims)} and holds {held} {unit} in place of {needed}")


def _place(tensor: TensorProto, what: str) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        raise _MalformedError(f"{what} has external data, and does not say in which file")
    for key in ("offset", "length"):
        number = entries.get(key, "0")
        if not (number.isascii() and number.isdigit() and len(number) < 20):
            raise _MalformedError(f"{what} has external data with the {key} {number!r}")


def _entries(tensor: TensorProto, count: int) -> int:
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    bits = _BITS.get(tensor.data_type, 64)
    return -(-count * bits // 8) if bits < 8 else count


def _functions(model: onnx.ModelProto) -> None:
    functions: dict[tuple[str, str, str], FunctionProto] = {}
    for function in model.functions:
        key = (_text(function.domain), _text(function.name), _text(function.overload))
        if key in functions:
            raise _MalformedError(f"the function {function.domain}::{function.name} is there twice")
        functions[key] = function
        _imports(function.opset_import)
        defined = set[str]()
        for name in function.input:
            _define(name, defined, "an input")
        _nodes(function.node, defined, ())
        for name in function.output:
            if _text(name) not in defined:
                raise _MalformedError(f"nothing in function {function.domain}::{function.name} computes {name!r}")
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
                raise _MalformedError(f"the function {called[0]}::{called[1]} calls itself")
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
