"""Philox4x32-10: published answers, carries, and the layout of the words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_spatialdrop.operator import philox

ONES = 0xFFFFFFFF


# Known answers published with Random123 (kat_vectors, philox4x32 10).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    assert philox.philox4x32(counter, key).tolist() == expected


def test_broadcasts_counters_against_keys() -> None:
    counters = np.zeros((3, 1, 4), np.uint32)
    keys = np.array([[0, 0], [1, 0]])
    words = philox.philox4x32(counters, keys)
    assert words.shape == (3, 2, 4)
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words[2, 0], philox.philox4x32([0] * 4, [0, 0]))


@pytest.mark.parametrize("first", [2**32 - 2, 2**64 - 2, 2**96 - 2, 2**128 - 2])
def test_counters_carry_through_every_word(first: int) -> None:
    got = philox.block_counters(first, 4)
    expected = [[((first + i) >> (32 * word)) & ONES for word in range(4)] for i in range(4)]
    assert got.tolist() == expected


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    step=st.integers(-(2**63), 2**63 - 1),
    start=st.integers(0, 2**34),
    count=st.integers(0, 9),
)
def test_each_word_is_its_own_function_of_key_and_counter(seed: int, step: int, start: int, count: int) -> None:
    got = philox.words(seed, [step], count, start)
    key = [seed & ONES, (seed >> 32) & ONES]
    for position in range(count):
        block, word = divmod(start + position, 4)
        counter = [block & ONES, block >> 32, step & ONES, (step >> 32) & ONES]
        assert got[0, position] == philox.philox4x32(counter, key)[word]
    assert got.shape == (1, count)


def test_rows_are_the_streams_of_their_steps() -> None:
    rows = philox.words(11, [5, -1, 2**40], 7)
    for row, step in zip(rows, [5, -1, 2**40], strict=True):
        np.testing.assert_array_equal(row, philox.words(11, [step], 7)[0])
