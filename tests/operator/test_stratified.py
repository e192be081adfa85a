"""Balanced draws: the rule by a second reading of the definition, and what it promises of cycles, pairs and draws."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_spatialdrop import SpecError, reference
from onnx_spatialdrop.operator import philox, spec, stratified

PRIMES = stratified.STRATA[1:]
RATIOS = [0.0, 2e-7, 0.1, 0.25, 0.3, 0.5, 0.9, 1 - 2**-24, 1.0]


def words(seed: int, counter_high: int, entry: int) -> int:
    """Return one word, on Python's integers."""
    counter = [entry // 4 % 2**32, entry // 4 >> 32, counter_high % 2**32, counter_high >> 32]
    return int(philox.philox4x32(counter, [seed % 2**32, seed % 2**64 >> 32])[entry % 4])


def dropped_by_hand(seed: int, step: int, entry: int, ratio: float, strata: int) -> bool:
    """Return whether an entry is dropped, by the text of the definition."""
    cycle, place = divmod(step, strata)
    m = words(seed, cycle + 2**63, entry) % (strata * (strata - 1))
    rank = ((1 + m // strata) * place + m % strata) % strata
    full, rest = divmod(math.ceil(Fraction(float(np.float32(ratio))) * strata * 2**24), 2**24)
    return rank < full or (rank == full and words(seed, step, entry) >> 8 < rest)


def test_the_primes() -> None:
    assert len(PRIMES) == 30
    assert (PRIMES[0], PRIMES[-1]) == (3, 127)


@pytest.mark.parametrize("steps", [[9], [2**63 - 1], [2**40 + 7, 0, 30]], ids=["one", "last", "each"])
@pytest.mark.parametrize("strata", [3, 31, 127])
def test_the_mask_entry_by_entry(strata: int, steps: list[int]) -> None:
    for ratio in (0.05, 0.37, 0.95):
        mask = reference.dropout_mask((3, 5, 2, 3), (1,), ratio, 2**63 - 5, steps, strata=strata)
        row = mask.size // len(steps)
        for index, kept in enumerate(mask.reshape(-1)):
            r, entry = divmod(index, row)
            assert kept != dropped_by_hand(2**63 - 5, steps[r], entry, ratio, strata)


@given(
    ratio=st.sampled_from(RATIOS) | st.floats(0, 1, width=32),
    strata=st.sampled_from(PRIMES),
    seed=st.integers(-(2**63), 2**63 - 1),
    cycle=st.integers(0, 2**55),
)
def test_every_entry_is_dropped_equally_often_in_every_cycle(ratio: float, strata: int, seed: int, cycle: int) -> None:
    steps = strata * cycle + np.arange(strata)
    mask = reference.dropout_mask((strata, 97), [], ratio, seed, steps, strata=strata)
    dropped = (~mask).sum(axis=0)
    share = float(np.float32(ratio)) * strata
    assert dropped.min() >= math.floor(share)
    assert dropped.max() <= math.ceil(share)
    each = [reference.dropout_mask((1, 97), [], ratio, seed, int(step), strata=strata)[0] for step in steps]
    np.testing.assert_array_equal(mask, each)


def all_orders(strata: int, limit: int) -> np.ndarray:
    """Return what is dropped at each place of a cycle under every order that there is, shape (places, orders)."""
    orders = np.arange(strata * (strata - 1), dtype=np.uint32)
    grid = np.broadcast_to(orders, (strata, orders.size))
    return ~stratified.kept(np.full_like(grid, 2**32 - 1), grid, np.arange(strata), limit, strata)


@pytest.mark.parametrize("strata", [3, 5, 31, 127])
def test_each_step_drops_its_share_and_each_pair_of_steps_as_without_replacement(strata: int) -> None:
    for full in {0, 1, strata // 3, strata - 1, strata}:
        dropped = all_orders(strata, full << 24).astype(np.float64)
        together = dropped @ dropped.T
        assert set(np.diag(together).tolist()) == {full * (strata - 1)}
        off = together[~np.eye(strata, dtype=bool)]
        assert set(off.tolist()) == {full * (full - 1)}


@pytest.mark.parametrize("strata", [3, 31, 127])
def test_one_draw_has_the_ratios_law(strata: int) -> None:
    for ratio in RATIOS:
        limit = stratified.threshold(ratio, strata)
        exact = Fraction(float(np.float32(ratio)))
        assert 0 <= Fraction(limit, strata * 2**24) - exact < Fraction(1, 2**24)
        full, rest = divmod(limit, 2**24)
        ranks = [int(all_orders(strata, k << 24)[1].sum()) for k in (full, min(full + 1, strata))]
        share = Fraction(ranks[0], strata * (strata - 1))
        share += Fraction(ranks[1] - ranks[0], strata * (strata - 1)) * Fraction(rest, 2**24)
        assert share == Fraction(limit, strata * 2**24)
        for level in {0, max(rest - 1, 0), rest, 2**24 - 1}:  # at rank F the word decides, by its upper 24 bits
            word = np.array([[level << 8 | 255]], np.uint32)
            order = np.array([[full % strata]], np.uint32)  # a = 1, c = F: rank F at place 0
            kept = stratified.kept(word, order, np.zeros(1, np.int64), limit, strata)
            assert kept.item() == (level >= rest and full < strata)


def test_a_draw_is_fair_and_its_entries_are_independent() -> None:
    """By counts that are binomial if so, within six standard deviations; with strata 31 and each place of a cycle."""
    for place in (0, 1, 17, 30):
        mask = reference.dropout_mask((1_000_000,), [], 0.3, 11, 31 * 5 + place, strata=31)
        p = float(np.float32(0.3))
        for hits, chance in (
            (~mask, p),
            (~mask[1:] & ~mask[:-1], p * p),
            (~mask[4:] & ~mask[:-4], p * p),
            (~mask & ~reference.dropout_mask((1_000_000,), [], 0.3, 11, 31 * 6 + place, strata=31), p * p),
            (~mask & ~reference.dropout_mask((1_000_000,), [], 0.3, 12, 31 * 5 + place, strata=31), p * p),
        ):
            assert abs(hits.sum() - hits.size * chance) < 6 * math.sqrt(hits.size * chance * (1 - chance))


def test_one_stratum_is_the_plain_rule() -> None:
    steps, limit = np.array([5, 2**40]), stratified.threshold(0.3, 1)
    drawn = philox.words(3, steps, 1000)
    orders = philox.words(3, steps + stratified.CYCLES, 1000)
    np.testing.assert_array_equal(
        stratified.kept(drawn, orders, steps, limit, 1), stratified.kept_rows(3, steps, 1000, limit)
    )


def test_sequences_of_negative_steps_begin_with_a_cycle() -> None:
    for strata in stratified.STRATA:
        stride = spec.fresh_step(-2, 0, strata)
        assert stride % strata == 0
        assert 2**20 - strata < stride <= 2**20
        assert [spec.fresh_step(step, 5, strata) for step in (-1, -2, -1000)] == [5, stride + 5, 999 * stride + 5]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strata": 4}, "node 'd': strata is 4; it must be 1 or a prime number from 3 to 127"),
        ({"strata": 0}, "node 'd': strata is 0; it must be 1 or a prime number"),
        ({"strata": 2}, "node 'd': strata is 2; it must be 1 or a prime number"),
        ({"strata": 131}, "node 'd': strata is 131; it must be 1 or a prime number"),
        ({"strata": -31}, "node 'd': strata is -31; it must be 1 or a prime number"),
        (
            {"strata": 31, "rng": "keras_jax"},
            "node 'd': strata is 31, but rng 'keras_jax' draws as its framework does",
        ),
    ],
)
def test_refused_strata(arguments: dict[str, object], message: str, training: bool) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        reference.spatial_dropout(np.ones((2, 3)), [], 0.5, 1, 0, training, where="node 'd'", **arguments)  # type: ignore[arg-type]
