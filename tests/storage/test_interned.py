"""Pieces of a file are told apart by their bytes, whatever their hashes are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_spatialdrop.storage import interned
from onnx_spatialdrop.storage.interned import Interned, is_ascii

PIECES = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from((b"", b"\0", b"\0\0", b"a" * 8, b"a" * 9))), max_size=30
)


def intern(pieces: list[bytes], few: bool = False) -> Interned:
    return Interned(*laid_out(pieces), few=few)


def laid_out(pieces: list[bytes]) -> tuple[bytes, np.ndarray, np.ndarray]:
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    ends = 8 + np.cumsum(sizes)
    return bytes(8) + b"".join(pieces), ends - sizes, ends


@settings(max_examples=300, derandomize=True, deadline=None)
@given(PIECES, st.booleans())
def test_equal_pieces_have_equal_numbers(pieces: list[bytes], few: bool) -> None:
    found = intern(pieces, few)
    assert [found.content(number) for number in found.ids.tolist()] == pieces
    assert sorted(found.contents()) == sorted(set(pieces))
    assert found.ascii == b"".join(pieces).isascii()
    assert is_ascii(*laid_out(pieces)) == found.ascii


def test_many_pieces_are_numbered_as_few_are() -> None:
    pieces = [f"a name of some length {index % 9000}".encode() for index in range(20000)]
    found = intern(pieces)
    assert found.ids.tolist() == [found.ids[index % 9000] for index in range(20000)]
    assert sorted(found.contents()) == sorted(set(pieces))


FACTOR = 0x9E3779B97F4A7C15


def collision(words: list[int], others: list[int]) -> tuple[bytes, bytes]:
    """Return two pieces of one hash: the last word of the second one makes it that."""
    states = []
    for each in (words, [*others, 0]):
        state = 8 * len(each) * FACTOR % 2**64
        for word in each[:-1]:
            mixed = (state ^ word) * FACTOR % 2**64
            state = mixed ^ mixed >> 32
        states.append(state)
    last = words[-1] ^ states[0] ^ states[1]
    first, second = (b"".join(word.to_bytes(8, "little") for word in each) for each in (words, [*others, last]))
    return first, second


@pytest.mark.parametrize("pair", [collision([1, 2], [3]), collision([1, 2], [3, 4]), collision([1, 2, 3], [1, 4])])
def test_pieces_of_one_hash_are_refused(pair: tuple[bytes, bytes]) -> None:
    assert pair[0] != pair[1]
    with pytest.raises(ValueError, match="one hash"):
        intern(list(pair))
    assert intern(list(pair), few=True).ids.tolist() == [0, 1]  # no hash is needed for a few
    others = [bytes((number,)) for number in range(10)]
    with pytest.raises(ValueError, match="one hash"):
        intern([*others, *pair], few=True)


def test_hashes_that_differ_in_their_last_bits_are_told_apart() -> None:
    hashed = np.array([5, 6, 5, 2**63, 7, 2**63 + 1], np.uint64)
    ids, first = interned._numbered(hashed)
    assert hashed[first[ids]].tolist() == hashed.tolist()
    assert len(first) == 5


def test_a_long_piece_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        intern([b"a" * 5000])


def test_a_piece_that_words_cannot_reach_back_from_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing stands before it"):
        Interned(b"abcdefghij", np.array([1]), np.array([3]))
    with pytest.raises(ValueError, match="nothing stands before"):
        is_ascii(b"abcdefghij", np.array([1]), np.array([3]))
