"""A model file as bytes of nodes: to take nodes out and rename what others read, without a Python object a node.

It reads files that have no subgraphs, no functions but those it is told of, and no external data, and it checks what
wellformed.py checks; what it does not read raises NotPlainError, and is for onnx_ir.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import compress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from onnx_spatialdrop import wire
from onnx_spatialdrop.infos import Infos
from onnx_spatialdrop.interned import Interned, is_ascii
from onnx_spatialdrop.lean import full, lean
from onnx_spatialdrop.wellformed_values import MalformedError, refuse_attribute, refuse_tensor, refuse_type

__all__ = ["Ints", "NotPlainError", "PlainFile", "check_attributes", "need"]

_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_NODE_TAGS: Final = tuple(number << 3 | 2 for number in range(1, 9))  # input to overload
_GRAPHS: Final = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
#: Before this IR version every initializer was listed as an input.
_FIRST_IR_VERSION: Final = 4
#: After all nodes: who computes a name that is not there.
NOBODY: Final = 2**62
Ints = npt.NDArray[np.int64]
_SHORT: Final = [bytes((_INPUT << 3 | 2, size)) for size in range(128)]


class NotPlainError(Exception):
    """This file is not for this module."""


def need(holds: bool) -> None:
    """Raise NotPlainError unless ``holds``."""
    if not holds:
        raise NotPlainError


class PlainFile:
    """The content of an .onnx file. Names are numbers, nodes too, in the order of the file.

    Attributes:
        op_types: which of ``types`` each node is.
        types: the op_types that there are.
        domains: the domain of each node: which of ``named_domains``, or -1 where it names none.
        named_domains: the domains that nodes name.
        reads, reads_rows, reads_from: the names that nodes read, who does, and where those of each node begin.
        makes, makes_rows, makes_from: the names that nodes compute, in the same way.
        maker: which node computes each name; -1 for those that are given, ``NOBODY`` for those that are not there.
        used: whether a node reads each name, or the graph returns it.
        returned: whether the graph returns it.
        inputs: the types of the graph's inputs.
        initializers: the tensors of the graph.
        opsets: the version of each domain.
        attributes: the attributes of all nodes.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._model: Any = lean().FromString(content)
            graph = self._model.graph
            self._nodes: list[bytes] = list(graph.node)
            infos: list[bytes] = list(graph.value_info)
            self._read_model()
            fields = wire.table([*self._nodes, *infos], b"".join(self._others))
            split = int(np.searchsorted(fields.row, len(self._nodes)))
            self._fields = fields.part(0, split)
            self.infos = Infos(fields.part(split, len(fields.row)), infos, len(self._nodes))
            self._intern()
            self._check_model()
            self._check_nodes()
            self._check_names()
            self.infos.check(self._infos_from)
        except (MalformedError, ValueError, DecodeError, KeyError, AttributeError):  # bytes, if it is not UTF-8
            raise NotPlainError from None

    def _read_model(self) -> None:
        graph = self._model.graph
        given = {value.name.encode(): value.type for value in graph.input}
        tensors = {tensor.name.encode(): full(tensor) for tensor in graph.initializer}
        returned = [value.name.encode() for value in graph.output]
        self.opsets = {
            ("" if entry.domain == "ai.onnx" else entry.domain): int(entry.version)
            for entry in self._model.opset_import
        }
        need(len(given) == len(graph.input) and len(tensors) == len(graph.initializer))
        self._given = [given, tensors]
        self._others = [b"", *given, *tensors, *returned]

    def _intern(self) -> None:
        """Number all names: those that are read, computed, have a type, and those of the graph, and the empty one."""
        fields, infos = self._fields, self.infos.names
        self._inputs, made = fields.of(_INPUT), fields.of(_OUTPUT)
        given, tensors = self._given
        blob, lengths = fields.blob, np.fromiter(map(len, self._others), np.int64, len(self._others))
        ends = len(blob) - wire.PADDING - int(lengths.sum()) + np.cumsum(lengths)
        pieces = [(each.start, each.end) for each in (self._inputs, made, infos)] + [(ends - lengths, ends)]
        starts, stops = (np.concatenate(column) for column in zip(*pieces, strict=True))
        self._names = Interned(blob, starts, stops)
        if not self._names.ascii:
            b"\0".join(self._names.contents()).decode()
        bounds = np.cumsum([len(start) for start, _ in pieces])[:-1]
        self.reads, self.makes, self._infos_from, found = np.split(self._names.ids, bounds)
        rows = np.arange(len(self._nodes) + 1)
        self.reads_rows, self.makes_rows = self._inputs.row, made.row
        self.reads_from, self.makes_from = (np.searchsorted(each.row, rows) for each in (self._inputs, made))
        numbers = found.tolist()
        self.empty: int = numbers[0]
        self.inputs: dict[int, Any] = dict(zip(numbers[1:], given.values(), strict=False))
        after = numbers[1 + len(given) :]
        self.initializers: dict[int, onnx.TensorProto] = dict(zip(after, tensors.values(), strict=False))
        self._outputs: list[int] = after[len(tensors) :]
        labels, domains = fields.of(_OP_TYPE), fields.of(_DOMAIN)
        types, named = (Interned(blob, each.start, each.end, few=True) for each in (labels, domains))
        self.op_types, self.types, self.named_domains = types.ids, types.contents(), named.contents()
        self.domains = np.full(len(self._nodes), -1)
        self.domains[domains.row] = named.ids
        self.attributes = fields.of(_ATTRIBUTE)

    def _check_model(self) -> None:
        model, graph = self._model, self._model.graph
        need(model.ir_version >= _FIRST_IR_VERSION and not model.training_info and not graph.sparse_initializer)
        need(len(self.opsets) == len(model.opset_import) and min(self.opsets.values(), default=0) > 0)
        for tensor in self.initializers.values():
            need(tensor.data_location != onnx.TensorProto.EXTERNAL)
            refuse_tensor(tensor, "")
        for value in (*graph.input, *graph.output):
            refuse_type(value)

    def _check_names(self) -> None:
        """Find who computes each name; every name is defined once, and before it is read."""
        count, given = len(self._names.first), [*{**self.inputs, **self.initializers}]
        named = self.makes != self.empty
        need(self.empty not in given)
        self.maker = np.full(count, NOBODY)
        self.maker[given] = -1
        defined = np.bincount(self.makes[named], minlength=count)
        need(bool((defined < 2).all()) and not defined[given].any())
        self.maker[self.makes[named]] = self.makes_rows[named]
        need(bool((self.maker[self._outputs] < NOBODY).all()))
        self.maker[self.empty] = -1
        need(bool((self.maker[self.reads] < self._inputs.row).all()))
        self.returned = np.zeros(count, bool)
        self.returned[self._outputs] = True
        self.used = self.used_without(np.zeros(0, np.int64))

    def _check_nodes(self) -> None:
        fields = self._fields
        known = np.zeros(256, bool)
        known[list(_NODE_TAGS)] = True
        need(bool((fields.tag < len(known)).all()) and bool(known[fields.tag].all()))
        need(len(self.op_types) == len(self._nodes) and b"" not in self.types)
        need(bool((np.diff(fields.of(_OP_TYPE).row) == 1).all()))
        for number in (_NAME, _DOMAIN):
            rows = fields.of(number).row
            need(len(rows) < 2 or bool((np.diff(rows) > 0).all()))
        b"\0".join([*self.types, *self.named_domains]).decode()
        names = fields.of(_NAME)
        if not is_ascii(names.blob, names.start, names.end):
            b"\0".join(names.values()).decode()

    def rows(self, *op_types: bytes) -> Ints:
        """Return the nodes of some op_types."""
        return np.flatnonzero(np.array([each in op_types for each in self.types], bool)[self.op_types])

    def node(self, row: int) -> onnx.NodeProto:
        """Return a copy of a node."""
        copy = onnx.NodeProto()
        copy.ParseFromString(self._nodes[row])
        return copy

    def reads_of(self, row: int) -> list[int]:
        """Return the names that a node reads."""
        found: list[int] = self.reads[self.reads_from[row] : self.reads_from[row + 1]].tolist()
        return found

    def name(self, number: int) -> bytes:
        """Return a name in words."""
        return self._names.content(number)

    def used_without(self, gone: Ints) -> npt.NDArray[np.bool_]:
        """Return for each name whether it is read or returned when some nodes are left out."""
        kept = np.ones(len(self._nodes), bool)
        kept[gone] = False
        used = self.returned.copy()
        used[self.reads[kept[self._inputs.row]]] = True
        used[self.empty] = False
        return used

    def write(self, gone: Ints, renamed: dict[int, int], infos: Iterable[bytes], dropped: Collection[bytes]) -> bytes:
        """Return the file without some nodes, in which ``renamed`` names are read under other names.

        Args:
            gone: nodes to leave out.
            renamed: what to read in place of a name.
            infos: the value_info to write.
            dropped: names of inputs and initializers to leave out.
        """
        nodes, graph, kept = list(self._nodes), self._model.graph, np.ones(len(self._nodes), bool)
        kept[gone] = False
        self._rename(nodes, renamed, kept)
        graph.ClearField("node")
        graph.node.extend(compress(nodes, kept.tolist()))
        graph.ClearField("value_info")
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

    def _rename(self, nodes: list[bytes], renamed: dict[int, int], kept: npt.NDArray[np.bool_]) -> None:
        fields, to = self._inputs, np.arange(len(self._names.first))
        to[list(renamed)] = list(renamed.values())
        edited = np.flatnonzero((to[self.reads] != self.reads) & kept[fields.row])[::-1]  # the last of a node first
        rows, names = fields.row[edited], to[self.reads[edited]]
        starts = np.concatenate(([0], np.cumsum(np.fromiter(map(len, nodes), np.int64, len(nodes)))))[rows]
        begins, ends = fields.start[edited] - starts, fields.end[edited] - starts
        heads = begins - 2 - sum((ends - begins >= 1 << bits).astype(np.int64) for bits in (7, 14))
        need(bool((np.frombuffer(fields.blob, np.uint8)[heads + starts] == _INPUT << 3 | 2).all()))  # shortest form
        pieces = map(_field, self._names.picked(names))
        for row, head, end, piece in zip(rows.tolist(), heads.tolist(), ends.tolist(), pieces, strict=True):
            node = nodes[row]
            nodes[row] = node[:head] + piece + node[end:]


def check_attributes(contents: Iterable[bytes]) -> dict[bytes, str]:
    """Raise NotPlainError for a subgraph, external data, or what is no attribute; equal ones are looked at once.

    Returns:
        The name of each.
    """
    names: dict[bytes, str] = {}
    try:
        for content in set(contents):
            attribute = onnx.AttributeProto.FromString(content)
            need(attribute.type not in _GRAPHS)
            need(not any(tensor.data_location for tensor in (attribute.t, *attribute.tensors)))
            refuse_attribute(attribute, "")
            names[content] = attribute.name
    except (MalformedError, DecodeError):
        raise NotPlainError from None
    return names


def _field(name: bytes) -> bytes:
    size = len(name)
    return (_SHORT[size] if size < len(_SHORT) else b"\n" + wire.varint(size)) + name
