"""Write a plain file without some of its nodes: what stays is copied from the file, in pieces between the edits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import Message

from onnx_spatialdrop.storage.plainfile import Ints, PlainFile, need
from onnx_spatialdrop.storage.spans import GRAPH, INFO, NODE, Spans
from onnx_spatialdrop.storage.wire import LENGTH, varint

__all__ = ["Edits", "write"]

_READ: Final = 1 << 3 | LENGTH  # NodeProto.input
#: So many edits are put into one piece of bytes.
_BATCH: Final = 2000
_NONE: Final = np.zeros(0, np.int64)


class Edits(NamedTuple):
    """What becomes of a file.

    Attributes:
        gone: the nodes to leave out.
        renamed: for each name the one to be read in its place, which some node reads already.
        infos: the value_info to leave out.
        added: more value_info.
        dropped: names of inputs and initializers to leave out.
        domain: an operator set of which the import is left out, and all functions; None leaves them.
    """

    gone: Ints
    renamed: Ints
    infos: Ints
    added: list[bytes]
    dropped: Collection[bytes]
    domain: str | None


class _Cuts(NamedTuple):
    """A part of a file from ``begin`` to ``end``, in which ``put`` stands for what is from ``starts`` to ``stops``."""

    begin: int
    end: int
    starts: list[int]
    stops: list[int]
    put: list[bytes]

    def size(self) -> int:
        return self.end - self.begin - sum(self.stops) + sum(self.starts) + sum(map(len, self.put))

    def pieces(self, content: bytes) -> Iterator[bytes]:
        kept = map(content.__getitem__, map(slice, [self.begin, *self.stops], [*self.starts, self.end]))
        edits = zip(kept, [*self.put, b""], strict=True)
        while batch := [*chain.from_iterable(islice(edits, _BATCH))]:
            yield b"".join(batch)


def write(file: PlainFile, edits: Edits) -> Iterator[bytes]:
    """Return the content of the file after ``edits``, in pieces; the model and its graph have their fields in order.

    Raises:
        NotPlainError: a name is not written as protobuf writes it; before anything is yielded.
    """
    content, spans = file.content, file.spans
    nodes = _cuts(spans, file.nodes, edits.gone, *_renamed(file, edits))
    infos = _cuts(spans, spans.of(INFO), edits.infos, _NONE, _NONE, [])
    added = b"".join(_head(INFO, len(info)) + info for info in edits.added)
    model, graph = spans.rest, spans.rest.graph
    for items in (graph.input, graph.initializer) if edits.dropped else ():
        _drop(items, lambda item: item.name.encode() in edits.dropped)
    if edits.domain is not None:
        del model.functions[:]
        _drop(model.opset_import, lambda entry: entry.domain == edits.domain)
    middle, after = _around(graph, INFO)
    model.ClearField("graph")
    head, tail = _around(model, GRAPH)
    size = nodes.size() + len(middle) + infos.size() + len(added) + len(after)
    return chain(
        (head + _head(GRAPH, size),),
        nodes.pieces(content),
        (middle,),
        infos.pieces(content),
        (added + after + tail,),
    )


def _cuts(spans: Spans, rows: Ints, gone: Ints, starts: Ints, stops: Ints, put: list[bytes]) -> _Cuts:
    """Return the fields ``rows`` of the file without ``gone`` of them, without what lies between, and some edits."""
    if not len(rows):
        return _Cuts(0, 0, [], [], [])
    heads, ends = spans.head[rows], spans.end[rows]
    gaps = np.flatnonzero(ends[:-1] != heads[1:])
    start = np.concatenate((starts, heads[gone], ends[gaps]))
    stop = np.concatenate((stops, ends[gone], heads[gaps + 1]))
    order = np.argsort(start, kind="stable")
    put = put + [b""] * (len(start) - len(put))
    in_order = list(map(put.__getitem__, order.tolist()))
    return _Cuts(int(heads[0]), int(ends[-1]), start[order].tolist(), stop[order].tolist(), in_order)


def _renamed(file: PlainFile, edits: Edits) -> tuple[Ints, Ints, list[bytes]]:
    """Return what changes in nodes that stay: from where, to where, and what is there now."""
    fields, content, kept = file.read_fields, file.content, np.ones(len(file.nodes), bool)
    kept[edits.gone] = False
    names = edits.renamed[file.reads]
    edited = np.flatnonzero((names != file.reads) & kept[fields.row])
    read_at = np.full(len(edits.renamed), -1)
    read_at[file.reads] = np.arange(len(file.reads))
    source = read_at[names[edited]]  # where the name stands in the file, to be copied
    need(not (source < 0).any())
    begin, end = _whole(content, fields.start[edited], fields.end[edited])
    source_begin, source_end = _whole(content, fields.start[source], fields.end[source])
    put = list(map(content.__getitem__, map(slice, source_begin.tolist(), source_end.tolist())))
    longer = np.bincount(fields.row[edited], source_end - source_begin - end + begin, len(file.nodes))
    resized = np.flatnonzero(longer)
    spans, rows = file.spans, file.nodes[resized]
    sizes = spans.end[rows] - spans.start[rows] + longer[resized].astype(np.int64)
    put += [_head(NODE, size) for size in sizes.tolist()]
    return np.concatenate((begin, spans.head[rows])), np.concatenate((end, spans.start[rows])), put


def _whole(content: bytes, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return where inputs of nodes begin with their tags, and where they end, if protobuf would write them so."""
    size = end - start
    begin = start - 2 - (size >= 1 << 7) - (size >= 1 << 14)
    need(bool((np.frombuffer(content, np.uint8)[begin] == _READ).all()))
    return begin, end


def _head(tag: int, size: int) -> bytes:
    return bytes((tag, size)) if size < 0x80 else bytes((tag,)) + varint(size)


def _drop(items: Any, unwanted: Callable[[Any], bool]) -> None:
    for index in range(len(items) - 1, -1, -1):
        if unwanted(items[index]):
            del items[index]


def _around(message: Message, tag: int) -> tuple[bytes, bytes]:
    """Return what protobuf writes of a message before and after a field that the message does not have."""
    behind = type(message)()
    for field, items in message.ListFields():
        if field.number > tag >> 3:
            getattr(behind, field.name).extend(items)  # all of them are lists
    whole, after = message.SerializeToString(deterministic=True), behind.SerializeToString(deterministic=True)
    need(whole.endswith(after))
    return whole[: len(whole) - len(after)], after
