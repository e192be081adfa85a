"""Refuse a protobuf that parses and is no model: what every pass takes for granted is checked once, here.

Nothing is judged that ONNX leaves to runtimes: operators, versions and shapes may be new or unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import cast

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage.survey import Block, Survey
from onnx_spatialdrop.storage.wellformed_values import (
    MalformedError,
    is_plain_and_whole,
    refuse_attribute,
    refuse_tensor,
    refuse_type,
    text,
)

__all__ = ["refuse_malformed"]

#: Domains whose attributes passes read; others may keep bytes in strings, and so may Constant, whose they are data.
_OURS = ("", "ai.onnx", "onnx_spatialdrop")
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
#: The attributes of nodes of fewer bytes are compared with those that were found right before, as most were.
_SMALL = 512
_Key = tuple[str, str, str]


def refuse_malformed(model: onnx.ModelProto, where: str, wanted: Collection[str] = ()) -> Survey:
    """Raise for a model that breaks the rules of ONNX's graphs; else return what the look at all its nodes has found.

    1. Names are UTF-8, and so are strings that steer an operator of ONNX or ours. No input, initializer or node output
       is defined twice in one graph; graph outputs and what nodes read are defined there or around it, and nodes stand
       in topological order, so that there are no cycles.
    2. Attributes and element types are of kinds that ONNX has, and a tensor holds as many elements as its dims say.
    3. No function is defined twice or calls itself, directly or not; no operator set is imported in two versions.

    Args:
        model: the model; external data is not looked at.
        where: who asks, for error messages.
        wanted: operators and domains whose nodes the survey is to list; calls of the model's functions are listed, too.

    Raises:
        ModelFileError: naming the first thing that is wrong.
    """
    try:
        return _Walk(model, wanted).survey
    except MalformedError as error:
        raise ModelFileError(f"{where}: is not a valid ONNX model: {error}") from None
    except RecursionError:
        raise ModelFileError(f"{where}: its graphs are nested too deeply") from None


class _Walk:
    """One look at everything, in the order of the file."""

    def __init__(self, model: onnx.ModelProto, wanted: Collection[str]) -> None:
        self.survey = Survey(model)
        self._wanted = frozenset(wanted)
        self._right_types = set[bytes]()  # those that were looked at before
        self._right_attributes = set[tuple[bool | bytes, ...]]()
        self._functions = dict[_Key, FunctionProto]()
        for function in model.functions:
            key = (text(function.domain), text(function.name), text(function.overload))
            if key in self._functions:
                raise MalformedError(f"the function {function.domain}::{function.name} is there twice")
            self._functions[key] = function
        self._graph(model.graph, None, _opset(model.opset_import))
        for function in model.functions:
            self._function(function)
        _no_recursion(self._functions)
        plain = (("" if domain == "ai.onnx" else domain, *rest) for domain, *rest in self.survey.operators)
        self.survey.operators = set(cast("Iterable[_Key]", plain))

    def _block(self, body: GraphProto | FunctionProto, outer: Block | None, opset: int) -> Block:
        block = Block(body, outer, opset)
        self.survey.blocks.append(block)
        return block

    def _graph(self, graph: GraphProto, outer: Block | None, opset: int) -> Block:
        block = self._block(graph, outer, opset)
        text(graph.name)
        for value in graph.input:
            _define(value.name, block.defined, "an input")
            self._type(value)
        initializers = set[str]()
        for tensor in graph.initializer:
            name = tensor.name
            if not is_plain_and_whole(tensor):
                self._tensor(tensor, f"initializer {text(name)!r}")
            if not name:
                raise MalformedError("an initializer has no name")
            if name not in block.defined:
                block.defined.add(text(name))
            elif name in initializers:
                raise MalformedError(f"initializer {name!r} is there twice")
            initializers.add(name)
        self._nodes(graph.node, block)
        for value in graph.output:
            self._type(value)
            if not value.name or block.home(text(value.name)) is None:
                raise MalformedError(f"nothing computes the output {value.name!r}")
        right = self._right_types
        for value in graph.value_info:
            if type(value.name) is not str or value.type.SerializeToString() not in right:
                text(value.name)
                self._type(value)
        return block

    def _function(self, function: FunctionProto) -> None:
        block = self._block(function, None, _opset(function.opset_import))
        for name in function.input:
            _define(name, block.defined, "an input")
        self._nodes(function.node, block)
        for name in function.output:
            if not text(name) or name not in block.defined:
                raise MalformedError(f"nothing in function {function.domain}::{function.name} computes {name!r}")

    def _nodes(self, nodes: Iterable[NodeProto], block: Block) -> None:
        defined, makers, reads = block.defined, block.makers, block.reads
        operators, wanted, functions = self.survey.operators, self._wanted, self._functions
        for place, node in enumerate(nodes):
            op_type, domain, overload = node.op_type, node.domain, node.overload
            if not (type(node.name) is type(op_type) is type(domain) is type(overload) is str):
                raise MalformedError(f"a name of {_named(node)} is not UTF-8")
            if not op_type:
                raise MalformedError(f"{_named(node)} is of no operator")
            read = node.input[:]
            reads.append(read)
            if not defined.issuperset(read):
                for name in read:
                    if block.home(name) is None:
                        text(name)
                        raise MalformedError(f"{_named(node)} reads {name!r}, which nothing before it computes")
            key = (domain, op_type, overload)
            operators.add(key)
            held = False
            if node.attribute or node.metadata_props or node.device_configurations:
                held = self._parts(node, block, place)
            if held or op_type in wanted or domain in wanted or key in functions:
                block.wanted.append((place, node))
            for name in node.output[:]:
                if name:
                    if name in defined or type(name) is not str:
                        _define(name, defined, _named(node))
                    defined.add(name)
                    makers[name] = place

    def _parts(self, node: NodeProto, block: Block, place: int) -> bool:
        """Look at what a node holds beside names; return whether there are subgraphs."""
        kinds = self._attributes(node) if node.attribute else ()
        held = AttributeProto.GRAPH in kinds or AttributeProto.GRAPHS in kinds
        if held:
            for attribute in node.attribute:
                if attribute.type in _GRAPHS:
                    for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                        block.inner.append((place, self._graph(graph, block, block.opset)))
        if node.metadata_props:
            keys = {entry.key for entry in node.metadata_props}
            if len(keys) < len(node.metadata_props):
                raise MalformedError(f"{_named(node)} has an entry of its metadata_props twice")
            self.survey.metadata |= keys
        if node.device_configurations and any(not each.configuration_id for each in node.device_configurations):
            raise MalformedError(f"{_named(node)} has a device configuration without a name")
        return held

    def _attributes(self, node: NodeProto) -> Collection[int]:
        """Look at a node's attributes but for subgraphs; return their types, or nothing where they were seen before."""
        decoded = node.domain in _OURS and node.op_type != "Constant"
        seen: tuple[bool | bytes, ...] | None = None
        if node.ByteSize() <= _SMALL:
            seen = (decoded, *[attribute.SerializeToString() for attribute in node.attribute])
            if seen in self._right_attributes:
                return ()
        outside = len(self.survey.external)
        kinds = [self._attribute(attribute, node, decoded) for attribute in node.attribute]
        if len({attribute.name for attribute in node.attribute}) < len(kinds):
            raise MalformedError(f"{_named(node)} has an attribute twice")
        if seen is not None and outside == len(self.survey.external) and not any(kind in _GRAPHS for kind in kinds):
            self._right_attributes.add(seen)
        return kinds

    def _attribute(self, attribute: AttributeProto, node: NodeProto, decoded: bool) -> int:
        """Look at one attribute but for its subgraphs; return its type."""
        kind: int = attribute.type
        refuse_attribute(attribute, _named(node))
        if kind == AttributeProto.STRING and decoded:
            try:
                attribute.s.decode()
            except UnicodeDecodeError:
                raise MalformedError(f"attribute {attribute.name!r} of {_named(node)} is not UTF-8") from None
        if kind in (AttributeProto.TENSOR, AttributeProto.TENSORS) and not attribute.ref_attr_name:
            tensors = [attribute.t] if kind == AttributeProto.TENSOR else attribute.tensors
            self.survey.external += [each for each in tensors if each.data_location == TensorProto.EXTERNAL]
        return kind

    def _tensor(self, tensor: TensorProto, what: str) -> None:
        refuse_tensor(tensor, what)
        if tensor.data_location == TensorProto.EXTERNAL:
            self.survey.external.append(tensor)

    def _type(self, value: onnx.ValueInfoProto) -> None:
        content = value.type.SerializeToString()
        if content not in self._right_types:
            refuse_type(value)
            self._right_types.add(content)


def _opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    """Return the version of the default domain; 1 where it is not imported."""
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if text(entry.domain) == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise MalformedError(
                f"it imports {domain or 'ai.onnx'!r} in the versions {versions[domain]} and {entry.version}"
            )
        if entry.version < 1:
            raise MalformedError(f"it imports version {entry.version} of {domain or 'ai.onnx'!r}")
    return versions.get("", 1)


def _define(name: str, defined: set[str], by: str) -> None:
    if name in defined:  # a subgraph's names may hide those around it: runtimes take that
        raise MalformedError(f"{by} defines {name!r}, which is defined already")
    defined.add(text(name))


def _named(node: NodeProto) -> str:
    return f"node {node.name!r}" if node.name else f"the {node.op_type} node of {(*node.output, '')[0]!r}"


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
