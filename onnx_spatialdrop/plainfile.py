"""A model file as bytes of nodes: to take nodes out and rename what others read, without a Python object a node.

It reads files that have no subgraphs, no functions but those it is told of, and no external data, and it checks what
wellformed.py checks; what it does not read raises NotPlainError, and is for onnx_ir.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from itertools import compress
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from onnx_spatialdrop import wire
from onnx_spatialdrop.wellformed_values import MalformedError, refuse_attribute, refuse_tensor, refuse_type

__all__ = ["NotPlainError", "PlainFile", "check_attributes", "need"]

_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_NODE_TAGS: Final = tuple(number << 3 | 2 for number in range(1, 9))  # input to overload
_INFO_NAME, _INFO_TYPE = 1, 2
_GRAPHS: Final = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
#: Before this IR version every initializer was listed as an input.
_FIRST_IR_VERSION: Final = 4


class NotPlainError(Exception):
    """This file is not for this module."""


def need(holds: bool) -> None:
    """Raise NotPlainError unless ``holds``."""
    if not holds:
        raise NotPlainError


@cache
def _lean() -> type[Message]:
    """Return ModelProto with nodes and value_info left as bytes: what is not looked into costs nothing."""
    file = descriptor_pb2.FileDescriptorProto()
    onnx.ModelProto.DESCRIPTOR.file.CopyToProto(file)
    graph = next(message for message in file.message_type if message.name == "GraphProto")
    for field in graph.field:
        if field.name in ("node", "value_info"):
            field.type = field.TYPE_BYTES
            field.ClearField("type_name")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.ModelProto"))
    return found


def _full(tensor: Any) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.ParseFromString(tensor.SerializeToString())
    return copy


class PlainFile:
    """The content of an .onnx file. Names are bytes, nodes are numbers, in the order of the file.

    Attributes:
        op_types: what each node is.
        domains: the domain of those nodes that name one.
        inputs: the types of the graph's inputs.
        initializers: the tensors of the graph.
        outputs: the names of the graph's outputs.
        opsets: the version of each domain.
        producers: which node computes each name.
        used: every name that a node reads or the graph returns.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._model: Any = _lean().FromString(content)
            self._nodes: list[bytes] = list(self._model.graph.node)
            self._fields = wire.table(self._nodes)
        except (DecodeError, ValueError):
            raise NotPlainError from None
        self._inputs, made = self._fields.of(_INPUT), self._fields.of(_OUTPUT)
        self._read, self._made = self._inputs.values(), made.values()
        self._made_in = made.row
        rows = np.arange(len(self._nodes) + 1)
        self._first_read, self._first_made = (
            np.searchsorted(column, rows).tolist() for column in (self._inputs.row, self._made_in)
        )
        self.op_types: list[bytes] = self._fields.of(_OP_TYPE).values()
        graph = self._model.graph
        try:
            self.inputs: dict[bytes, Any] = {value.name.encode(): value.type for value in graph.input}
            self.initializers: dict[bytes, onnx.TensorProto] = {t.name.encode(): _full(t) for t in graph.initializer}
            self.outputs = {value.name.encode() for value in graph.output}
            self.opsets = {
                ("" if entry.domain == "ai.onnx" else entry.domain): int(entry.version)
                for entry in self._model.opset_import
            }
            self._check_model()
            self.producers = self._checked_names()
            self._check_nodes()
        except (MalformedError, UnicodeError, DecodeError, KeyError, AttributeError):  # bytes, if it is not UTF-8
            raise NotPlainError from None
        domains = self._fields.of(_DOMAIN)
        self.domains: dict[int, bytes] = dict(zip(domains.row.tolist(), domains.values(), strict=True))
        self.used = {*self._read, *self.outputs} - {b""}

    def _check_model(self) -> None:
        model, graph = self._model, self._model.graph
        need(model.ir_version >= _FIRST_IR_VERSION and not model.training_info and not graph.sparse_initializer)
        need(len(self.inputs) == len(graph.input) and len(self.initializers) == len(graph.initializer))
        need(len(self.opsets) == len(model.opset_import) and min(self.opsets.values(), default=0) > 0)
        for tensor in self.initializers.values():
            need(tensor.data_location != onnx.TensorProto.EXTERNAL)
            refuse_tensor(tensor, "")
        for value in (*graph.input, *graph.output):
            refuse_type(value)

    def _checked_names(self) -> dict[bytes, int]:
        """Return which node computes each name; every name is defined once, and before it is read."""
        b"\0".join([*self._read, *self._made]).decode()
        given = {*self.inputs, *self.initializers}
        producers = dict(zip(self._made, self._made_in.tolist(), strict=True))
        producers.pop(b"", None)
        need(len(producers) == len(self._made) - self._made.count(b""))
        need(given.isdisjoint(producers) and b"" not in given)
        known = dict.fromkeys(given, -1) | producers | {b"": -1}
        before = np.fromiter((known[name] for name in self._read), np.int64, len(self._read))
        need(bool((before < self._inputs.row).all()) and self.outputs <= known.keys() - {b""})
        return producers

    def _check_nodes(self) -> None:
        fields = self._fields
        known = np.zeros(256, bool)
        known[list(_NODE_TAGS)] = True
        need(bool((fields.tag < len(known)).all()) and bool(known[fields.tag].all()))
        need(len(self.op_types) == len(self._nodes) and b"" not in self.op_types)
        need(bool((np.diff(fields.of(_OP_TYPE).row) == 1).all()))
        for number in (_NAME, _DOMAIN):
            rows = fields.of(number).row
            need(len(rows) < 2 or bool((np.diff(rows) > 0).all()))
        if not fields.blob.isascii():
            b"\0".join([*self.op_types, *fields.of(_NAME).values(), *fields.of(_DOMAIN).values()]).decode()

    def attributes(self) -> dict[int, list[bytes]]:
        """Return the attributes of each node that has any."""
        fields = self._fields.of(_ATTRIBUTE)
        found: dict[int, list[bytes]] = {}
        for row, content in zip(fields.row.tolist(), fields.values(), strict=True):
            found.setdefault(row, []).append(content)
        return found

    def node(self, row: int) -> onnx.NodeProto:
        """Return a copy of a node."""
        copy = onnx.NodeProto()
        copy.ParseFromString(self._nodes[row])
        return copy

    def reads(self, row: int) -> list[bytes]:
        """Return the names that a node reads."""
        return self._read[self._first_read[row] : self._first_read[row + 1]]

    def makes(self, row: int) -> list[bytes]:
        """Return the names that a node computes."""
        return self._made[self._first_made[row] : self._first_made[row + 1]]

    def used_without(self, gone: Collection[int]) -> set[bytes]:
        """Return every name that is read or returned when some nodes are left out."""
        kept = np.ones(len(self._nodes), bool)
        kept[list(gone)] = False
        return {*compress(self._read, kept[self._inputs.row].tolist()), *self.outputs}

    def infos(self) -> dict[bytes, bytes]:
        """Return the value_info of each name."""
        infos: list[bytes] = list(self._model.graph.value_info)
        try:
            fields = wire.table(infos)
        except ValueError:
            raise NotPlainError from None
        names = fields.of(_INFO_NAME)
        found = dict(zip(names.values(), infos, strict=False))
        need(len(names.row) == len(infos) == len(found))
        try:
            for content in set(fields.of(_INFO_TYPE).values()):  # models repeat a few types a thousand times
                refuse_type(onnx.ValueInfoProto(type=onnx.TypeProto.FromString(content)))
        except (MalformedError, DecodeError):
            raise NotPlainError from None
        return found

    def write(
        self, gone: Collection[int], renamed: dict[bytes, bytes], infos: Iterable[bytes], dropped: Collection[bytes]
    ) -> bytes:
        """Return the file without some nodes, in which ``renamed`` names are read under other names.

        Args:
            gone: nodes to leave out.
            renamed: what to read in place of a name.
            infos: the value_info to write.
            dropped: names of inputs and initializers to leave out.
        """
        nodes, graph, kept = list(self._nodes), self._model.graph, np.ones(len(self._nodes), bool)
        self._rename(nodes, renamed)
        kept[list(gone)] = False
        del graph.node[:]
        graph.node.extend(compress(nodes, kept.tolist()))
        del graph.value_info[:]
        graph.value_info.extend(infos)
        for items in (graph.input, graph.initializer):
            for index in range(len(items) - 1, -1, -1):
                if items[index].name.encode() in dropped:
                    del items[index]
        return bytes(self._model.SerializeToString(deterministic=True))

    def drop_domain(self, domain: str) -> None:
        """Leave out the functions, and the import of ``domain``."""
        del self._model.functions[:]
        imports = self._model.opset_import
        for index in range(len(imports) - 1, -1, -1):
            if imports[index].domain == domain:
                del imports[index]

    def functions(self) -> list[tuple[str, str]]:
        """Return domain and name of every function."""
        return [(function.domain, function.name) for function in self._model.functions]

    def _rename(self, nodes: list[bytes], renamed: dict[bytes, bytes]) -> None:
        starts = np.concatenate(([0], np.cumsum(np.fromiter(map(len, nodes), np.int64, len(nodes)))))
        readers: dict[int, list[tuple[int, int, bytes]]] = {}
        for position in [index for index, name in enumerate(self._read) if name in renamed]:
            row = int(self._inputs.row[position])
            begin, end = int(self._inputs.start[position]), int(self._inputs.end[position])
            offset, name = int(starts[row]), renamed[self._read[position]]
            readers.setdefault(row, []).append((begin - offset, end - offset, name))
        for row, edits in readers.items():
            node = nodes[row]
            for begin, end, name in reversed(edits):
                head = begin - 1 - len(wire.varint(end - begin))
                node = node[:head] + _field(_INPUT, name) + node[end:]
            nodes[row] = node


def check_attributes(contents: Iterable[bytes]) -> None:
    """Raise NotPlainError for a subgraph, external data, or what is no attribute; equal ones are looked at once."""
    try:
        for content in set(contents):
            attribute = onnx.AttributeProto.FromString(content)
            need(attribute.type not in _GRAPHS)
            need(not any(tensor.data_location for tensor in (attribute.t, *attribute.tensors)))
            refuse_attribute(attribute, "")
    except (MalformedError, DecodeError):
        raise NotPlainError from None


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + wire.varint(len(content)) + content
