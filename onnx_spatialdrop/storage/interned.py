"""Numbers for pieces of a file, such that equal pieces have equal numbers, found with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.storage.wire import blocks

__all__ = ["Interned", "is_ascii", "words"]

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

#: Longer pieces would cost a round each word.
_LONGEST: Final = 4096
#: So many different pieces are compared with all others before hashes are worth their while.
_FEW: Final = 6
_WORD: Final = 8
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, odd
_HIGH: Final = np.uint64(0x8080808080808080)
_HALF: Final = np.uint64(32)


class Interned:
    """Which pieces of ``blob`` are equal.

    Attributes:
        ids: a number for each piece, from 0; equal pieces have the same, others have not.
        first: the first of the pieces that have each number.
        ascii: whether no piece holds a byte over 127.
    """

    def __init__(self, blob: bytes, start: Ints, end: Ints, few: bool = False) -> None:
        """Compare pieces.

        Args:
            blob: what holds the pieces, of which none ends in the first seven bytes.
            start: where each piece begins.
            end: where it ends.
            few: whether few of them differ, which is faster then.

        Raises:
            ValueError: a piece is too long, or two that differ have one hash, which chance does not bring about.
        """
        self._blob, self._start, self._end, self.ascii = blob, start, end, True
        if len(start) and (int((end - start).max()) > _LONGEST or int(end.min()) < _WORD):
            raise ValueError("a name is too long, or nothing stands before it")
        self.ids: Ints = np.full(len(start), -1)
        self.first: Ints = np.zeros(0, np.int64)
        left = np.arange(len(start))
        if few:
            left = self._compare(left)
        if len(left):
            self._hash(left)

    def content(self, number: int) -> bytes:
        """Return the piece that has a number."""
        piece = self.first[number]
        return self._blob[self._start[piece] : self._end[piece]]

    def contents(self) -> list[bytes]:
        """Return all pieces that differ, in the order of their numbers."""
        slices = map(slice, self._start[self.first].tolist(), self._end[self.first].tolist())
        return list(map(self._blob.__getitem__, slices))

    def _compare(self, left: Ints) -> Ints:
        """Number those that are equal to one of the first few different pieces; return the others."""
        read, size = words(self._blob), self._end - self._start
        while len(left) and len(self.first) < _FEW:
            piece = int(left[0])
            begin, length = int(self._start[piece]), int(size[piece])
            self.ascii = self.ascii and self._blob[begin : begin + length].isascii()
            same, shift = left[size[left] == length], np.uint64(8 * max(_WORD - length, 0))
            for done in range(0, length, _WORD):
                place = min(done, length - _WORD)  # the last word ends where the piece does
                same = same[read[self._start[same] + place] >> shift == read[begin + place] >> shift]
            self.ids[same] = len(self.first)
            self.first = np.append(self.first, piece)
            left = left[self.ids[left] < 0]
        return left

    def _hash(self, left: Ints) -> None:
        """Number the pieces that are left."""
        start, end = (self._start, self._end) if len(left) == len(self.ids) else (self._start[left], self._end[left])
        read, every, hashed = words(self._blob), np.zeros(1, np.uint64), np.empty(len(left), np.uint64)
        for block in blocks(len(left)):
            begins, ends = start[block], end[block]
            found = (ends - begins).astype(np.uint64) * _FACTOR
            for part, word in _rounds(read, begins, ends):
                every |= np.bitwise_or.reduce(word)
                mixed = (found[part] ^ word) * _FACTOR
                found[part] = mixed ^ mixed >> _HALF
            hashed[block] = found
        self.ascii = self.ascii and not (every & _HIGH).any()
        ids, first = _numbered(hashed)
        for block in blocks(len(left)):
            other = first[ids[block]]
            if not _are_equal(read, start[block], end[block], start[other], end[other]):
                raise ValueError("two names have one hash")
        self.ids[left] = ids + len(self.first)
        self.first = np.concatenate((self.first, left[first]))


def is_ascii(blob: bytes, start: Ints, end: Ints) -> bool:
    """Return whether pieces of ``blob``, of which none ends in the first seven bytes, hold no byte over 127."""
    if len(end) and int(end.min()) < _WORD:
        raise ValueError("nothing stands before a name")
    read = words(blob)
    return not any(
        (word & _HIGH).any() for block in blocks(len(start)) for _, word in _rounds(read, start[block], end[block])
    )


def words(blob: bytes) -> Words:
    """Return the little-endian word of eight bytes that begins at each byte."""
    return np.ndarray((max(len(blob) - 7, 0),), np.dtype("<u8"), blob, strides=(1,))


def _rounds(read: Words, start: Ints, end: Ints) -> Iterator[tuple[Ints | slice, Words]]:
    """Yield which pieces have another word, and that word, filled with zeros."""
    chosen: Ints | slice = slice(None)
    position = start
    while True:
        more = position < end
        if not more.all():
            left = np.flatnonzero(more)
            chosen = left if isinstance(chosen, slice) else chosen[left]
            position, end = position[left], end[left]
        if not len(position):
            return
        place = np.minimum(position, end - _WORD)
        yield chosen, read[place] >> ((position - place) << 3).astype(np.uint64)
        position = position + _WORD


def _numbered(hashed: Words) -> tuple[Ints, Ints]:
    """Return numbers such that equal hashes have equal ones, and the first place of each number."""
    bits = np.uint64(len(hashed).bit_length())
    packed = hashed >> bits << bits
    packed |= np.arange(len(hashed), dtype=np.uint64)
    packed.sort()  # takes a fraction of argsort's time
    order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).view(np.int64)
    packed >>= bits
    ids, first = _runs(packed, order)
    if any((hashed[block] != hashed[first[ids[block]]]).any() for block in blocks(len(ids))):  # equal in the high bits
        order = np.argsort(hashed, stable=True)
        ids, first = _runs(hashed[order], order)
    return ids, first


def _runs(ordered: Words, order: Ints) -> tuple[Ints, Ints]:
    begins = np.ones(len(order), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ids = np.empty(len(order), np.int64)
    ids[order] = np.cumsum(begins) - 1
    return ids, order[begins]


def _are_equal(read: Words, start: Ints, end: Ints, other: Ints, other_end: Ints) -> bool:
    """Return whether pieces of the same hash, which alone proves nothing, are equal.

    For one size and equal words before it, the last word decides the hash: no two of them give the same.
    """
    size = end - start
    if not np.array_equal(size, other_end - other):
        return False
    part, done = np.flatnonzero(size > _WORD), 0
    while len(part):
        if not np.array_equal(read[start[part] + done], read[other[part] + done]):
            return False
        done += _WORD
        part = part[size[part] > done + _WORD]
    return True
