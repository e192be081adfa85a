"""Numbers for pieces of a file, such that equal pieces have equal numbers, found with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Interned", "is_ascii", "words"]

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

#: Longer pieces would cost a round each word.
_LONGEST: Final = 4096
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, odd
_HIGH: Final = np.uint64(0x8080808080808080)
_HALF: Final = np.uint64(32)


class Interned:
    """Which pieces of ``blob`` are equal.

    Attributes:
        ids: a number for each piece, from 0; equal pieces have the same, others have not.
        first: one of the pieces that have each number.
        ascii: whether no piece holds a byte over 127.

    Raises:
        ValueError: a piece is too long, or two that differ have one hash, which chance does not bring about.
    """

    def __init__(self, blob: bytes, start: Ints, end: Ints, few: bool = False) -> None:
        """Compare pieces.

        Args:
            blob: what holds the pieces, and at least eight bytes more.
            start: where each piece begins.
            end: where it ends.
            few: whether few of them differ, which is faster then.
        """
        self._blob, self._start, self._end = blob, start, end
        size = end - start
        if len(size) and int(size.max()) > _LONGEST:
            raise ValueError("a name is too long")
        read = words(blob)
        hashed = size.astype(np.uint64) * _FACTOR
        every = np.zeros(1, np.uint64)
        for part, word in _rounds(read, start, size):
            every |= np.bitwise_or.reduce(word)
            mixed = (hashed[part] ^ word) * _FACTOR
            hashed[part] = mixed ^ mixed >> _HALF
        self.ascii = not (every & _HIGH).any()
        self.ids: Ints
        self.first: Ints
        if few:
            different = np.unique(hashed)
            self.ids = np.searchsorted(different, hashed)
            self.first = np.zeros(len(different), np.int64)
            self.first[self.ids[::-1]] = np.arange(len(hashed))[::-1]
        else:
            order = np.argsort(hashed)
            ordered = hashed[order]
            begins = np.ones(len(order), bool)
            begins[1:] = ordered[1:] != ordered[:-1]
            self.first, self.ids = order[begins], np.empty(len(order), np.int64)
            self.ids[order] = np.cumsum(begins) - 1
        self._verify(read, size)

    def content(self, number: int) -> bytes:
        """Return the piece that has a number."""
        piece = self.first[number]
        return self._blob[self._start[piece] : self._end[piece]]

    def contents(self) -> list[bytes]:
        """Return all pieces that differ, in the order of their numbers."""
        return self.picked(np.arange(len(self.first)))

    def picked(self, numbers: Ints) -> list[bytes]:
        """Return the pieces that have some numbers."""
        pieces = self.first[numbers]
        slices = map(slice, self._start[pieces].tolist(), self._end[pieces].tolist())
        return list(map(self._blob.__getitem__, slices))

    def _verify(self, read: Words, size: Ints) -> None:
        """Compare each piece with the first of its number: a hash alone proves nothing."""
        other = self.first[self.ids]
        if not np.array_equal(size, size[other]):
            raise ValueError("two names have one hash")
        others = self._start[other]
        for (_, word), (_, same) in zip(_rounds(read, self._start, size), _rounds(read, others, size), strict=True):
            if not np.array_equal(word, same):
                raise ValueError("two names have one hash")


def is_ascii(blob: bytes, start: Ints, end: Ints) -> bool:
    """Return whether pieces of ``blob`` hold no byte over 127."""
    return not any((word & _HIGH).any() for _, word in _rounds(words(blob), start, end - start))


def words(blob: bytes) -> Words:
    """Return the little-endian word of eight bytes that begins at each byte."""
    return np.ndarray((max(len(blob) - 7, 0),), np.dtype("<u8"), blob, strides=(1,))


def _rounds(read: Words, start: Ints, size: Ints) -> Iterator[tuple[Ints, Words]]:
    """Yield which pieces have another word, and that word, filled with zeros."""
    part = np.flatnonzero(size > 0)
    done = 0
    while len(part):
        word = read[start[part] + done]
        short = np.maximum(8 - (size[part] - done), 0).astype(np.uint64) * np.uint64(8)
        yield part, word << short >> short
        done += 8
        part = part[size[part] > done]
