"""Refuse a protobuf that parses and is no model: what every pass takes for granted is checked once, here.

Nothing is judged that ONNX leaves to runtimes: operators, versions and shapes may be new or unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import cast

import onnx
from onnx import FunctionProto, GraphProto, TensorProto

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage.columns import Columns, of_body, of_file
from onnx_spatialdrop.storage.survey import Block, Survey
from onnx_spatialdrop.storage.wellformed_attributes import Attributes, named
from onnx_spatialdrop.storage.wellformed_values import (
    MalformedError,
    is_plain_and_whole,
    refuse_tensor,
    refuse_type,
    subgraphs,
    text,
)

__all__ = ["refuse_malformed"]

_Key = tuple[str, str, str]


def refuse_malformed(
    model: onnx.ModelProto, where: str, wanted: Collection[str] = (), content: bytes | None = None
) -> Survey:
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
        content: the bytes that the model was read from, where they are at hand; with them the look is faster.

    Raises:
        ModelFileError: naming the first thing that is wrong.
    """
    try:
        return _Walk(model, wanted, content).survey
    except MalformedError as error:
        raise ModelFileError(f"{where}: is not a valid ONNX model: {error}") from None
    except RecursionError:
        raise ModelFileError(f"{where}: its graphs are nested too deeply") from None


class _Walk:
    """One look at everything: in bulk where nothing is wrong, and node by node where something may be."""

    def __init__(self, model: onnx.ModelProto, wanted: Collection[str], content: bytes | None) -> None:
        self.survey = Survey(model)
        self._wanted = frozenset(wanted)
        self._right_types = set[bytes]()  # those that were looked at before
        self._attributes = Attributes(self.survey)
        self._functions = dict[_Key, FunctionProto]()
        self._inside: _Key | None = None
        self._calls = defaultdict[_Key | None, set[_Key]](set)  # what each function calls
        for function in model.functions:
            key = (text(function.domain), text(function.name), text(function.overload))
            if key in self._functions:
                raise MalformedError(f"the function {function.domain}::{function.name} is there twice")
            self._functions[key] = function
        seen: list[Columns | None] = [None] * (1 + len(model.functions))
        if content is not None:
            seen = [*(of_file(content, model) or seen)]
        self._graph(model.graph, None, _opset(model.opset_import), seen[0])
        for key, columns in zip(self._functions, seen[1:], strict=True):
            self._inside = key
            self._function(self._functions[key], columns)
        try:
            TopologicalSorter({key: sorted(called) for key, called in self._calls.items()}).prepare()
        except CycleError as error:
            domain, name, _ = error.args[1][0]
            raise MalformedError(f"the function {domain}::{name} calls itself") from None
        plain = (("" if domain == "ai.onnx" else domain, *rest) for domain, *rest in self.survey.operators)
        self.survey.operators = set(cast("Iterable[_Key]", plain))

    def _block(self, body: GraphProto | FunctionProto, outer: Block | None, opset: int) -> Block:
        block = Block(body, outer, opset)
        self.survey.blocks.append(block)
        return block

    def _graph(self, graph: GraphProto, outer: Block | None, opset: int, columns: Columns | None = None) -> Block:
        block = self._block(graph, outer, opset)
        text(graph.name)
        for value in graph.input:
            _define(value.name, block.defined, "an input")
            self._type(value)
        for tensor in graph.initializer:
            name = tensor.name
            if not is_plain_and_whole(tensor):
                self._tensor(tensor, f"initializer {text(name)!r}")
            if not name:
                raise MalformedError("an initializer has no name")
            if text(name) in block.tensors:
                raise MalformedError(f"initializer {name!r} is there twice")
            block.tensors[name] = tensor
        block.defined.update(block.tensors)
        self._nodes(block, columns or of_body(graph.node, graph.value_info))
        for value in graph.output:
            self._type(value)
            if not value.name or block.home(text(value.name)) is None:
                raise MalformedError(f"nothing computes the output {value.name!r}")
        return block

    def _function(self, function: FunctionProto, columns: Columns | None) -> None:
        block = self._block(function, None, _opset(function.opset_import))
        for name in function.input:
            _define(name, block.defined, "an input")
        self._nodes(block, columns or of_body(function.node, function.value_info))
        for name in function.output:
            if not text(name) or name not in block.defined:
                raise MalformedError(f"nothing in function {function.domain}::{function.name} computes {name!r}")

    def _nodes(self, block: Block, columns: Columns) -> None:
        block.fill()
        if not columns.is_text or not set(map(type, chain(block.op_types, chain.from_iterable(block.makes)))) <= {str}:
            self._refuse_bytes(block)
        if "" in block.op_types:
            raise MalformedError(f"{named(block.nodes[block.op_types.index('')])} is of no operator")
        holders = self._beside_names(block, columns)
        self._list(block, columns, holders)
        self._follow(block, holders)
        try:
            for content in sorted(columns.types - self._right_types):
                self._type(onnx.ValueInfoProto(type=onnx.TypeProto.FromString(content)))
        except MalformedError:
            for value in block.body.value_info:  # one of them has that type
                self._type(value)
            raise

    def _refuse_bytes(self, block: Block) -> None:
        for node in block.nodes:
            if not (type(node.name) is type(node.op_type) is type(node.domain) is type(node.overload) is str):
                raise MalformedError(f"a name of {named(node)} is not UTF-8")
            for name in node.output:
                text(name)
        for value in block.body.value_info:
            text(value.name)

    def _list(self, block: Block, columns: Columns, holders: Collection[int]) -> None:
        """Note which operators there are, and the nodes that are wanted or hold subgraphs."""
        kinds: list[_Key] | list[str] = block.op_types
        keys: dict[_Key | str, _Key] = {op_type: ("", op_type, "") for op_type in set(block.op_types)}
        if not columns.is_plain:
            kinds = [(node.domain, op, node.overload) for node, op in zip(block.nodes, block.op_types, strict=True)]
            keys = {key: key for key in set(kinds)}
        self.survey.operators.update(keys.values())
        self._calls[self._inside] |= keys.values() & self._functions.keys()
        wanted = {kind for kind, key in keys.items() if not self._wanted.isdisjoint(key[:2]) or key in self._functions}
        places = (place for place, kind in enumerate(kinds) if kind in wanted or place in holders)
        block.wanted = [(place, block.nodes[place]) for place in places]

    def _follow(self, block: Block, holders: Collection[int]) -> None:
        """Look whether each node reads what is there before it, and computes what nothing else does."""
        defined, before = block.defined, len(block.defined)
        for place, (read, made) in enumerate(zip(block.reads, block.makes, strict=True)):
            if not defined.issuperset(read):
                for name in read:
                    if block.home(name) is None:
                        text(name)
                        raise MalformedError(
                            f"{named(block.nodes[place])} reads {name!r}, which nothing before it computes"
                        )
            if place in holders:
                for attribute in block.nodes[place].attribute:
                    for graph in subgraphs(attribute):
                        block.inner.append((place, self._graph(graph, block, block.opset)))
            defined.update(made)
        count = sum(map(len, block.makes)) - sum(
            made.count("") for made in block.makes if len(made) > 1 or made == [""]
        )
        if len(defined) != before + count:
            self._refuse_twice(block)

    def _refuse_twice(self, block: Block) -> None:
        body = block.body
        given = body.input if isinstance(body, FunctionProto) else (value.name for value in body.input)
        defined = {*given, *block.tensors}
        for node in block.nodes:
            for name in filter(None, node.output):
                _define(name, defined, named(node))

    def _beside_names(self, block: Block, columns: Columns) -> set[int]:
        """Look at what nodes hold beside names; return the places of those with subgraphs."""
        holders = self._attributes.holders(block, columns.attributes) if columns.attributes else set[int]()
        for node in block.nodes if columns.has_metadata else ():
            keys = {entry.key for entry in node.metadata_props}
            if len(keys) < len(node.metadata_props):
                raise MalformedError(f"{named(node)} has an entry of its metadata_props twice")
            self.survey.metadata |= keys
        for node in block.nodes if columns.has_devices else ():
            if any(not each.configuration_id for each in node.device_configurations):
                raise MalformedError(f"{named(node)} has a device configuration without a name")
        return holders

    def _tensor(self, tensor: TensorProto, what: str) -> None:
        refuse_tensor(tensor, what)
        if tensor.data_location == TensorProto.EXTERNAL:
            self.survey.external.append(tensor)

    def _type(self, value: onnx.ValueInfoProto) -> None:
        text(value.name)
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
