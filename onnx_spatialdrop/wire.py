"""Where the fields of many protobuf messages lie, found for all messages at once with NumPy; nothing is decoded.

A model of 100,000 nodes takes seconds to turn into Python objects and milliseconds to look at in this way. The wire
format is that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["PADDING", "Fields", "table", "varint"]

Ints = npt.NDArray[np.int64]

#: A message of more fields than this is not for this module: it costs a round of all messages each.
_MOST_FIELDS: Final = 2000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10
#: What follows the last message: what reads on from its end is still inside.
PADDING: Final = 2 * _LONGEST_VARINT


class Fields:
    """The fields of a list of messages, in the order of the list, and of each message.

    Attributes:
        blob: all messages, one after the other.
        row: which message each field belongs to.
        tag: field number times 8 plus wire type.
        start: where in ``blob`` each value begins, after its length if it has one.
        end: where it ends.
    """

    def __init__(self, blob: bytes, row: Ints, tag: Ints, start: Ints, end: Ints) -> None:
        self.blob, self.row, self.tag, self.start, self.end = blob, row, tag, start, end

    def of(self, number: int) -> Fields:
        """Return the fields of one number that hold bytes, text or a message."""
        return self.where(np.flatnonzero(self.tag == number << 3 | _LENGTH))

    def where(self, chosen: Ints | npt.NDArray[np.bool_]) -> Fields:
        """Return some of the fields."""
        return Fields(self.blob, self.row[chosen], self.tag[chosen], self.start[chosen], self.end[chosen])

    def part(self, begin: int, end: int) -> Fields:
        """Return the fields from one to another."""
        part = slice(begin, end)
        return Fields(self.blob, self.row[part], self.tag[part], self.start[part], self.end[part])

    def values(self) -> list[bytes]:
        """Return the content of every field."""
        return list(map(self.blob.__getitem__, map(slice, self.start.tolist(), self.end.tolist())))


def table(messages: Sequence[bytes], beside: bytes = b"") -> Fields:
    """Return the fields of ``messages``; their blob ends with ``beside`` and PADDING zeros.

    Raises:
        ValueError: a message that is no protobuf, has groups, or too many fields.
    """
    blob = b"".join([*messages, beside, bytes(PADDING)])
    ends = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
    starts = np.concatenate(([0], ends[:-1])).astype(np.int64)
    buffer = np.frombuffer(blob, np.uint8)
    row, position = np.arange(len(messages)), starts
    found: list[tuple[Ints, Ints, Ints, Ints]] = []
    while True:
        left = position < ends[row]
        row, position = row[left], position[left]
        if not len(row):
            break
        if len(found) == _MOST_FIELDS:
            raise ValueError("a message has too many fields")
        tag, position = _varints(buffer, position)
        start, position = _skip(buffer, tag, position)
        if (position > ends[row]).any() or (position < start).any():
            raise ValueError("a field ends outside its message")
        found.append((row, tag, start, position))
    if not found:
        none = np.zeros(0, np.int64)
        return Fields(blob, none, none, none, none)
    count = np.bincount(np.concatenate([each[0] for each in found]), minlength=len(messages))
    first = np.cumsum(count) - count
    columns = [np.empty(int(count.sum()), np.int64) for _ in range(4)]
    for place, each in enumerate(found):  # the fields of a round are one of each message, in their order
        target = first[each[0]] + place
        for column, part in zip(columns, each, strict=True):
            column[target] = part
    return Fields(blob, *columns)


def varint(number: int) -> bytes:
    """Return a length as protobuf writes it."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _varints(buffer: npt.NDArray[np.uint8], position: Ints) -> tuple[Ints, Ints]:
    """Return the numbers that begin at ``position``, and where they end."""
    byte = buffer[position].astype(np.int64)
    value, after = byte & 0x7F, position + 1
    more = np.flatnonzero(byte & 0x80)
    for shift in range(7, 7 * _LONGEST_VARINT, 7):
        if not len(more):
            break
        byte = buffer[after[more]].astype(np.int64)
        value[more] |= (byte & 0x7F) << min(shift, 56)  # what is larger is no length anyway
        after[more] += 1
        more = more[(byte & 0x80) != 0]
    if len(more):
        raise ValueError("a number has too many bytes")
    return value, after


def _skip(buffer: npt.NDArray[np.uint8], tag: Ints, position: Ints) -> tuple[Ints, Ints]:
    """Return where the values after ``tag`` begin and end."""
    kind = tag & 7
    start, end = position.copy(), position.copy()
    for wire, size in ((_FIXED32, 4), (_FIXED64, 8)):
        end[kind == wire] += size
    chosen = np.flatnonzero(kind == _VARINT)
    if len(chosen):
        end[chosen] = _varints(buffer, position[chosen])[1]
    chosen = np.flatnonzero(kind == _LENGTH)
    if len(chosen):
        length, after = _varints(buffer, position[chosen])
        start[chosen], end[chosen] = after, after + np.minimum(length, len(buffer))
    if ((kind == 3) | (kind == 4) | (kind > 5)).any():
        raise ValueError("a field is of a wire type that is out of use")
    return start, np.minimum(end, len(buffer) + 1)
