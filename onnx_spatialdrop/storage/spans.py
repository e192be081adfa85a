"""Where the fields of a model file's graph lie, found without a Python object a node; what is neither is parsed."""

from __future__ import annotations

from array import array
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from onnx_spatialdrop.storage.wire import LENGTH, VARINT, number, varint

__all__ = ["GRAPH", "INFO", "INITIALIZER", "INPUT", "NODE", "OUTPUT", "Spans"]

Ints = npt.NDArray[np.int64]

#: The tags of fields of GraphProto, and of ModelProto's graph.
NODE, INITIALIZER, INPUT, OUTPUT, INFO = (field << 3 | LENGTH for field in (1, 5, 11, 12, 13))
GRAPH: Final = 7 << 3 | LENGTH
#: Fields of GraphProto whose tag is one byte.
_KNOWN: Final = np.zeros(256, bool)
_KNOWN[[field.number << 3 | LENGTH for field in onnx.GraphProto.DESCRIPTOR.fields if field.number < 16]] = True
#: After so many fields it is looked at whether they are any.
_BATCH: Final = 1 << 16
_MOST_FIELDS: Final = 1 << 24
_MOST_MODEL_FIELDS: Final = 1 << 14


class Spans:
    """The fields of a file's graph, in the order of the file, up to the first that is none of ``_KNOWN``.

    Attributes:
        rest: the model without its nodes and value_info.
        tag: field number times 8 plus wire type of each field.
        head: where each begins, with its tag.
        start: where its content begins.
        end: where it ends.
    """

    def __init__(self, content: bytes) -> None:
        """Find them in the bytes of a file.

        Raises:
            ValueError: it is no model, or not one that this module reads: with one graph, in which every length is as
                short as it can be.
            google.protobuf.message.DecodeError: the rest is no model.
        """
        buffer = np.frombuffer(content, np.uint8)
        place, begin, end = _graph(content)
        self.head, last = _walk(content, buffer, begin, end)
        self.end = np.append(self.head[1:], last)[: len(self.head)]
        self.tag = buffer[self.head]
        self.start = _contents(buffer, self.head, self.end)
        others = np.flatnonzero((self.tag != NODE) & (self.tag != INFO))
        self._content, self._others = content, (self.head[others].tolist(), self.end[others].tolist())
        self._graph = place, last
        view = memoryview(content)
        pieces = [*map(view.__getitem__, map(slice, *self._others))]
        size = sum(map(len, pieces)) + end - last
        head = b"".join((view[:place], bytes((GRAPH,)), varint(size)))
        self.rest = onnx.ModelProto.FromString(b"".join((head, *pieces, view[last:end], view[end:])))
        if self.rest.graph.node or self.rest.graph.value_info:
            raise ValueError("there are nodes after a field of many bytes")

    def holds(self, part: bytes) -> bool:
        """Return whether these bytes are in one of the fields that are neither nodes nor value_info."""
        begins, ends = self._others
        edges = ((0, self._graph[0]), (self._graph[1], len(self._content)))
        return any(self._content.find(part, *each) >= 0 for each in (*edges, *zip(begins, ends, strict=True)))

    def of(self, tag: int) -> Ints:
        """Return which fields have a tag."""
        return np.flatnonzero(self.tag == tag)


def _graph(content: bytes) -> tuple[int, int, int]:
    """Return where the field of a model's graph begins, where its content does, and where that ends."""
    found, position = list[tuple[int, int, int]](), 0
    for _ in range(_MOST_MODEL_FIELDS):
        if position >= len(content):
            break
        head = position
        tag, position = number(content, position)
        value, start = number(content, position)
        position = start
        if tag & 7 == LENGTH:
            position += value
        elif tag & 7 != VARINT:
            raise ValueError("a field is of a wire type that models do not have")
        if tag == GRAPH:
            found.append((head, start, position))
    if position != len(content) or len(found) != 1:
        raise ValueError("it is no model, or has no graph, or two")
    return found[0]


def _walk(content: bytes, buffer: npt.NDArray[np.uint8], position: int, end: int) -> tuple[Ints, int]:
    """Return where each field begins, up to the first that is unknown, and where that one begins, or the end."""
    found = [np.zeros(0, np.int64)]
    while position < end:
        batch = array("q")
        append = batch.append
        try:
            for _ in repeat(None, _BATCH):
                append(position)
                size = content[position + 1]
                if size < 0x80:
                    position += size + 2
                elif (high := content[position + 2]) < 0x80:
                    position += (size & 0x7F | high << 7) + 3
                else:
                    size, start = number(content, position + 1)
                    position = start + size
                if position >= end:
                    break
        except (IndexError, ValueError):
            position = end + 1
        heads = np.frombuffer(batch, np.int64)
        strange = np.flatnonzero(~_KNOWN[buffer[heads]])
        if len(strange):  # what was found from there on means nothing
            found.append(heads[: strange[0]])
            position = end = int(heads[strange[0]])
        else:
            found.append(heads)
        if len(found) * _BATCH > _MOST_FIELDS:
            raise ValueError("there are too many fields")
    if position != end:
        raise ValueError("a field ends outside its message")
    return np.concatenate(found), end


def _contents(buffer: npt.NDArray[np.uint8], head: Ints, end: Ints) -> Ints:
    """Return where the content of each field begins."""
    start = head + 2
    more = np.flatnonzero(buffer[head + 1] & 0x80)
    while len(more):
        start[more] += 1
        more = more[buffer[start[more] - 1] >= 0x80]
    long = np.flatnonzero(start - head > 2)
    if ((end[long] - start[long]) >> 7 * (start[long] - head[long] - 2) == 0).any():
        raise ValueError("a length takes more bytes than it has to")
    return start
