"""Threefry2x32-20: published answers, a second reading of the algorithm, and the layout of the words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_spatialdrop.operator import threefry

ONES = 0xFFFFFFFF


def threefry2x32_by_hand(counter: tuple[int, int], key: tuple[int, int]) -> tuple[int, int]:
    """Five groups of four rounds on plain integers, a key injection after each (Salmon et al. 2011, section 4)."""
    ks = [key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1]]
    a, b = (counter[0] + ks[0]) % 2**32, (counter[1] + ks[1]) % 2**32
    for group in range(5):
        for turn in ([13, 15, 26, 6], [17, 29, 16, 24])[group % 2]:
            a = (a + b) % 2**32
            b = ((b << turn) % 2**32 + (b >> (32 - turn))) ^ a
        a = (a + ks[(group + 1) % 3]) % 2**32
        b = (b + ks[(group + 2) % 3] + group + 1) % 2**32
    return a, b


# Known answers published with Random123 (kat_vectors, threefry2x32 20).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(counter: tuple[int, int], key: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tuple(threefry.threefry2x32(counter, key).tolist()) == expected
    assert threefry2x32_by_hand(counter, key) == expected


def test_broadcasts_counters_against_keys() -> None:
    words = threefry.threefry2x32(np.zeros((3, 1, 2), np.uint32), np.array([[0, 0], [1, 0]]))
    assert words.shape == (3, 2, 2)
    assert words.dtype == np.uint32
    assert words[2, 0].tolist() == [0x6B200159, 0x99BA4EFE]


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    step=st.integers(-(2**63), 2**63 - 1),
    start=st.integers(0, 2**34),
    count=st.integers(0, 9),
)
def test_each_word_is_its_own_function_of_key_and_index(seed: int, step: int, start: int, count: int) -> None:
    got = threefry.words(seed, [step], count, start)
    assert got.shape == (1, count)
    for position, word in enumerate(got[0].tolist()):
        first, second = threefry2x32_by_hand(divmod(start + position, 2**32), (seed & ONES, step & ONES))
        assert word == first ^ second


def test_rows_are_the_streams_of_their_steps() -> None:
    rows = threefry.words(11, [5, -1, 2**40 + 3], 7)
    for row, step in zip(rows, [5, -1, 3], strict=True):
        np.testing.assert_array_equal(row, threefry.words(11, [step], 7)[0])
