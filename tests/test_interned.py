"""Pieces of a file are told apart by their bytes, whatever their hashes are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_spatialdrop import interned
from onnx_spatialdrop.interned import Interned, is_ascii

PIECES = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from((b"", b"\0", b"\0\0", b"a" * 8, b"a" * 9))), max_size=30
)


def intern(pieces: list[bytes], few: bool = False) -> Interned:
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    ends = np.cumsum(sizes)
    return Interned(b"".join(pieces) + bytes(8), ends - sizes, ends, few=few)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(PIECES, st.booleans())
def test_equal_pieces_have_equal_numbers(pieces: list[bytes], few: bool) -> None:
    found = intern(pieces, few)
    assert [found.content(number) for number in found.ids.tolist()] == pieces
    assert sorted(found.contents()) == sorted(set(pieces))
    assert found.ascii == b"".join(pieces).isascii()
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    ends = np.cumsum(sizes)
    assert is_ascii(b"".join(pieces) + bytes(8), ends - sizes, ends) == found.ascii


@pytest.mark.parametrize("few", [False, True])
def test_pieces_of_one_hash_are_refused(monkeypatch: pytest.MonkeyPatch, few: bool) -> None:
    monkeypatch.setattr(interned, "_FACTOR", np.uint64(0))  # all hashes are 0
    assert intern([b"same", b"same"], few).ids.tolist() == [0, 0]
    for other in (b"some", b"longer"):
        with pytest.raises(ValueError, match="one hash"):
            intern([b"same", other], few)


def test_a_long_piece_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        intern([b"a" * 5000])
