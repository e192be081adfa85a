"""Where the fields of many protobuf messages lie, found for all messages at once with NumPy; nothing is decoded.

A model of 100,000 nodes takes seconds to turn into Python objects and milliseconds to look at in this way. The wire
format is that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["LENGTH", "VARINT", "Fields", "Table", "blocks", "number", "table", "varint"]

Ints = npt.NDArray[np.int64]
Tags = npt.NDArray[np.uint8]
_Columns = tuple[Ints, Ints, Ints]

#: Wire types.
VARINT: Final = 0
LENGTH: Final = 2
#: A message of more fields than this is not for this module: it costs a round of all messages each.
_MOST_FIELDS: Final = 2000
_LONGEST_VARINT: Final = 10
_BLOCK: Final = 1 << 13


class Fields:
    """Some fields of a list of messages, in the order of the list, and of each message.

    Attributes:
        blob: what holds the messages.
        row: which message each field belongs to.
        start: where in ``blob`` each value begins, after its length.
        end: where it ends.
    """

    def __init__(self, blob: bytes, row: Ints, start: Ints, end: Ints) -> None:
        self.blob, self.row, self.start, self.end = blob, row, start, end

    def where(self, chosen: Ints | npt.NDArray[np.bool_]) -> Fields:
        """Return some of the fields."""
        return Fields(self.blob, self.row[chosen], self.start[chosen], self.end[chosen])

    def values(self) -> list[bytes]:
        """Return the content of every field."""
        return list(map(self.blob.__getitem__, map(slice, self.start.tolist(), self.end.tolist())))


class Table:
    """All fields of a list of messages.

    Attributes:
        numbers: the numbers that fields have.
    """

    def __init__(self, blob: bytes, parts: dict[int, list[_Columns]]) -> None:
        self._blob, self._parts, self.numbers = blob, parts, frozenset(tag >> 3 for tag in parts)

    def of(self, field: int) -> Fields:
        """Return the fields of one number."""
        parts = self._parts.get(field << 3 | LENGTH) or [(np.zeros(0, np.int64),) * 3]
        row, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Fields(self._blob, row, start, end)


def table(blob: bytes, starts: Ints, ends: Ints) -> Table:
    """Return the fields of the messages that lie in ``blob`` from ``starts`` to ``ends``.

    Raises:
        ValueError: a message that is no protobuf, or has a field that is not bytes, text or a message, or one of a
            number over 15, or too many.
    """
    parts: dict[int, list[_Columns]] = {}
    for block in blocks(len(starts)):
        tag, columns = _fields(blob, starts[block], ends[block])
        columns[0][:] += block.start
        for each in np.flatnonzero(np.bincount(tag)).tolist():
            chosen = np.flatnonzero(tag == each)
            row, start, end = (column[chosen] for column in columns)
            parts.setdefault(each, []).append((row, start, end))
    return Table(blob, parts)


def blocks(count: int) -> Iterator[slice]:
    """Yield parts of ``count`` items, such that an array of one part stays in a processor's cache."""
    for begin in range(0, count, _BLOCK):
        yield slice(begin, min(begin + _BLOCK, count))


def _fields(blob: bytes, starts: Ints, ends: Ints) -> tuple[Tags, _Columns]:
    """Return the tags of all fields, and what Fields says of them."""
    buffer = np.frombuffer(blob, np.uint8)
    pairs = np.ndarray((max(len(blob) - 1, 0),), np.dtype("<u2"), blob, strides=(1,))
    row, count = np.flatnonzero(starts < ends), np.zeros(len(starts), np.int64)
    position, stop = starts[row], ends[row]
    found: list[tuple[Ints, Tags, Ints, Ints]] = []
    while len(row):
        if len(found) == _MOST_FIELDS:
            raise ValueError("a message has too many fields")
        pair = pairs[np.minimum(position, len(pairs) - 1)]
        if (pair & 0x87 != LENGTH).any():
            raise ValueError("a field is of a kind that this module does not read")
        start, end = _contents(buffer, position, pair >> 8)
        if (end > stop).any():
            raise ValueError("a field ends outside its message")
        found.append((row, pair.astype(np.uint8), start, end))
        count[row] = len(found)
        left = np.flatnonzero(end < stop)
        row, position, stop = row[left], end[left], stop[left]
    first, total = np.cumsum(count) - count, int(count.sum())
    tags = np.empty(total, np.uint8)
    columns = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
    for place, (row, tag, start, end) in enumerate(found):  # a round has one field of each message, in their order
        target = first[row] + place
        tags[target] = tag
        for column, part in zip(columns, (row, start, end), strict=True):
            column[target] = part
    return tags, columns


def varint(size: int) -> bytes:
    """Return a length as protobuf writes it."""
    written = bytearray()
    while size > 0x7F:
        written.append(size & 0x7F | 0x80)
        size >>= 7
    written.append(size)
    return bytes(written)


def number(content: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a byte, and where it ends.

    Raises:
        ValueError: it does not end, or is of more bytes than numbers have.
    """
    value = 0
    for shift, byte in enumerate(content[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    raise ValueError("a number does not end")


def _contents(buffer: npt.NDArray[np.uint8], position: Ints, first: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Return where the content of fields begins and ends, of which ``first`` is the first byte of their length."""
    start, size = position + 2, first.astype(np.int64)
    more = np.flatnonzero(first & 0x80)
    size[more] &= 0x7F
    for shift in range(7, 64, 7):
        if not len(more):
            return start, start + size
        byte = buffer[np.minimum(start[more], len(buffer) - 1)].astype(np.int64)
        size[more] |= (byte & 0x7F) << min(shift, 35)  # what is larger is no length
        start[more] += 1
        more = more[byte >= 0x80]
    raise ValueError("a length has too many bytes")
