"""A model file as bytes of nodes: who reads and computes what, without a Python object a node.

It reads files that have no subgraphs, no functions but those it is told of, and no external data, and it checks what
wellformed.py checks; what it does not read raises NotPlainError, and is for onnx_ir.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from onnx_spatialdrop.storage.infos import Infos
from onnx_spatialdrop.storage.interned import Interned, is_ascii
from onnx_spatialdrop.storage.spans import INFO, INITIALIZER, INPUT, NODE, OUTPUT, Spans
from onnx_spatialdrop.storage.wellformed_values import MalformedError, refuse_tensor, refuse_type, text
from onnx_spatialdrop.storage.wire import table

__all__ = ["Flags", "Ints", "NotPlainError", "PlainFile", "chosen", "need"]

_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_NODE_FIELDS: Final = frozenset(range(1, 9))  # input to overload
#: Before this IR version every initializer was listed as an input.
_FIRST_IR_VERSION: Final = 4
#: After all nodes: who computes a name that is not there.
NOBODY: Final = 2**62
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class NotPlainError(Exception):
    """This file is not for this module."""


def need(holds: bool) -> None:
    """Raise NotPlainError unless ``holds``."""
    if not holds:
        raise NotPlainError


def chosen(count: int, *places: Ints | list[int]) -> Flags:
    """Return flags of which those at ``places`` are set; NumPy's set functions take longer to be imported."""
    flags = np.zeros(count, bool)
    for each in places:
        flags[each] = True
    return flags


class PlainFile:
    """The content of an .onnx file. Names are numbers, nodes too, in the order of the file.

    Attributes:
        spans: where the nodes and the value_info lie, and the rest of the model.
        nodes: which of the spans are nodes.
        op_types: which of ``types`` each node is.
        types: the op_types that there are.
        domains: the domain of each node: which of ``named_domains``, or -1 where it names none.
        named_domains: the domains that nodes name.
        reads, reads_rows, reads_from: the names that nodes read, who does, and where those of each node begin.
        read_fields: the fields in which they are read.
        makes, makes_rows, makes_from: the names that nodes compute, in the same way.
        maker: which node computes each name; -1 for those that are given, ``NOBODY`` for those that are not there.
        used: whether a node reads each name, or the graph returns it.
        returned: whether the graph returns it.
        inputs: the types of the graph's inputs.
        initializers: the tensors of the graph.
        opsets: the version of each domain.
        attributes: the attributes of all nodes.
        infos: the value_info.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        try:
            self.spans = spans = Spans(content)
            self.nodes = spans.of(NODE)
            self._fields = table(content, spans.start[self.nodes], spans.end[self.nodes])
            infos = spans.of(INFO)
            self.infos = Infos(table(content, spans.start[infos], spans.end[infos]), len(infos))
            self._read_model()
            self._intern()
            self._check_model()
            self._check_nodes()
            self._check_names()
            self.infos.check(self._infos_from)
        except (MalformedError, ValueError, DecodeError, KeyError, AttributeError):  # bytes, if it is not UTF-8
            raise NotPlainError from None

    def _read_model(self) -> None:
        graph = self.spans.rest.graph
        for name in (graph.name, *(entry.domain for entry in self.spans.rest.opset_import)):
            text(name)
        self._given: dict[bytes, Any] = {value.name.encode(): value.type for value in graph.input}
        self._tensors = {tensor.name.encode(): tensor for tensor in graph.initializer}
        self.opsets = {
            ("" if entry.domain == "ai.onnx" else entry.domain): int(entry.version)
            for entry in self.spans.rest.opset_import
        }
        need(len(self._given) == len(graph.input) and len(self._tensors) == len(graph.initializer))

    def _intern(self) -> None:
        """Number all names: those that are read, computed, have a type, and those of the graph, and the empty one."""
        fields, blob = self._fields, self.content
        self.read_fields, made, infos = fields.of(_INPUT), fields.of(_OUTPUT), self.infos.names
        returned = [value.name.encode() for value in self.spans.rest.graph.output]
        places = [(len(blob), len(blob))]
        for tag, names in ((INPUT, self._given), (INITIALIZER, self._tensors), (OUTPUT, returned)):
            places += self._places(tag, names)
        others = np.array(places, np.int64)
        pieces = [(each.start, each.end) for each in (self.read_fields, made, infos)] + [(others[:, 0], others[:, 1])]
        starts, stops = (np.concatenate(column) for column in zip(*pieces, strict=True))
        self._names = Interned(blob, starts, stops)
        if not self._names.ascii:
            b"\0".join(self._names.contents()).decode()
        bounds = np.cumsum([len(start) for start, _ in pieces])[:-1]
        self.reads, self.makes, self._infos_from, found = np.split(self._names.ids, bounds)
        rows = np.arange(len(self.nodes) + 1)
        self.reads_rows, self.makes_rows = self.read_fields.row, made.row
        self.reads_from, self.makes_from = (np.searchsorted(each.row, rows) for each in (self.read_fields, made))
        numbers = found.tolist()
        self.empty: int = numbers[0]
        self.inputs: dict[int, Any] = dict(zip(numbers[1:], self._given.values(), strict=False))
        after = numbers[1 + len(self._given) :]
        self.initializers: dict[int, onnx.TensorProto] = dict(zip(after, self._tensors.values(), strict=False))
        self._outputs: list[int] = after[len(self._tensors) :]
        labels, domains = fields.of(_OP_TYPE), fields.of(_DOMAIN)
        types, named = (Interned(blob, each.start, each.end, few=True) for each in (labels, domains))
        self.op_types, self.types, self.named_domains = types.ids, types.contents(), named.contents()
        self.domains = np.full(len(self.nodes), -1)
        self.domains[domains.row] = named.ids
        self.attributes = fields.of(_ATTRIBUTE)

    def _places(self, tag: int, names: Collection[bytes]) -> list[tuple[int, int]]:
        """Return where the names of inputs, initializers or outputs are to be read."""
        spans, found = self.spans, list[tuple[int, int]]()
        rows = spans.of(tag)
        for name, start, end in zip(names, spans.start[rows].tolist(), spans.end[rows].tolist(), strict=True):
            at = self.content.index(name, start, end)
            found.append((at, at + len(name)))
        return found

    def _check_model(self) -> None:
        model, graph = self.spans.rest, self.spans.rest.graph
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
        need(bool((self.maker[self.reads] < self.reads_rows).all()))
        self.returned = chosen(count, self._outputs)
        self.used = self.used_without(np.zeros(0, np.int64))

    def _check_nodes(self) -> None:
        fields = self._fields
        need(fields.numbers <= _NODE_FIELDS)
        need(len(self.op_types) == len(self.nodes) and b"" not in self.types)
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
        span = self.nodes[row]
        copy: onnx.NodeProto = onnx.NodeProto.FromString(self.content[self.spans.start[span] : self.spans.end[span]])
        return copy

    def reads_of(self, row: int) -> list[int]:
        """Return the names that a node reads."""
        found: list[int] = self.reads[self.reads_from[row] : self.reads_from[row + 1]].tolist()
        return found

    def name(self, number: int) -> bytes:
        """Return a name in words."""
        return self._names.content(number)

    def used_without(self, gone: Ints) -> Flags:
        """Return for each name whether it is read or returned when some nodes are left out."""
        kept = ~chosen(len(self.nodes), gone)
        used = self.returned.copy()
        used[self.reads[kept[self.reads_rows]]] = True
        used[self.empty] = False
        return used
