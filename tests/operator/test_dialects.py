"""The dialects of rng: entry by entry by a second reading of the definition, thresholds, ratios and refusals."""

import math
import re
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_spatialdrop import SpecError, reference
from onnx_spatialdrop.operator import dialects, philox, spec, threefry

PAIRS = [(rng, name) for rng, dialect in dialects.DIALECTS.items() for name in dialect.tests]
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**31 - 2, 2**31 - 1, 2**32, 2**63 - 1])
MODULUS = 2147483646


def word_by_hand(rng: str, seed: int, step: int, index: int) -> int:
    """Return one word, on Python's integers."""
    if rng == "keras_jax":
        high, low = divmod(index, 2**32)
        first, second = threefry.threefry2x32([high, low], [seed % 2**32, step % 2**32]).tolist()
        return int(first ^ second)
    block = index // 4
    counter = [block % 2**32, block // 2**32]
    if rng == "philox":
        key, rest = [seed % 2**32, seed % 2**64 // 2**32], [step % 2**32, step % 2**64 // 2**32]
    else:  # both remainders are below 2**31, so their high words are 0
        mixed = philox.philox4x32([seed % MODULUS, 0, step % MODULUS, 0], [0x3EC8F720, 0x02461E29]).tolist()
        key, rest = mixed[:2], mixed[2:]
    return int(philox.philox4x32(counter + rest, key)[index % 4])


def kept_by_hand(word: int, rng: str, ratio: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a word keeps its entry, by the fraction that the framework makes of it."""
    if rng == "philox":
        return Fraction(word >> 8, 2**24) >= Fraction(float(np.float32(ratio)))
    if rng == "keras_jax":
        return Fraction(word >> 9, 2**23) < Fraction(float(np.float32(1.0 - float(np.float32(ratio)))))
    own = Fraction(float(np.float32(ratio).astype(dtype)))
    if rng == "keras_tf_xla" and dtype.name != "float16":
        return Fraction(word >> 9, 2**23) >= own
    mantissa = {"float16": 10, "bfloat16": 7, "float32": 23}[dtype.name]
    return Fraction(word % 2**mantissa, 2**mantissa) >= own


@pytest.mark.parametrize(("rng", "name"), PAIRS)
@pytest.mark.parametrize("steps", [[9], [2**33, 0, 5]], ids=["one", "each"])
def test_the_mask_entry_by_entry(rng: str, name: str, steps: list[int]) -> None:
    shape, axes, seed, dtype = (3, 5, 2, 4), (1, 3), 2**63 - 5, spec.DTYPES[name]
    for ratio in (0.05, 0.37, 0.95):
        mask = reference.dropout_mask(shape, axes, ratio, seed, steps, rng=rng, dtype=dtype)
        row = mask.size // len(steps)
        for index, kept in enumerate(mask.reshape(-1)):
            r, entry = divmod(index, row)
            assert kept == kept_by_hand(word_by_hand(rng, seed, steps[r], entry), rng, ratio, dtype)


@given(
    rng=st.sampled_from(spec.RNGS), seed=INTEGERS, step=INTEGERS, start=st.integers(0, 2**34), count=st.integers(0, 9)
)
def test_each_word_is_its_own_function_of_seed_step_and_index(
    rng: str, seed: int, step: int, start: int, count: int
) -> None:
    got = dialects.words(rng, seed, [step], count, start)
    assert got.dtype == np.uint32
    assert got.tolist() == [[word_by_hand(rng, seed, step, start + n) for n in range(count)]]


@pytest.mark.parametrize(("rng", "name"), PAIRS)
def test_ratio_zero_keeps_all_and_ratio_one_drops_all(rng: str, name: str) -> None:
    dtype, words = spec.DTYPES[name], np.array([0, 1, 2**32 - 1, 2**31, 511, 512], np.uint32)
    all_, none = (dialects.threshold(ratio, rng, dtype) for ratio in (0.0, 1.0))
    assert dialects.kept(words, rng, dtype, all_).all()
    assert not dialects.kept(words, rng, dtype, none).any()
    x = np.full((5, 50), np.nan, dtype)
    y, mask = reference.spatial_dropout(x, [], 1.0, 3, 4, rng=rng)
    assert not mask.any()
    np.testing.assert_array_equal(y.view(np.uint8), 0)


def test_thresholds_at_the_ends_and_beside_them() -> None:
    tiny, most = np.finfo(np.float32).smallest_subnormal, np.nextafter(np.float32(1), np.float32(0))
    found = {rng: [dialects.threshold(float(r), rng) for r in (0, tiny, most, 1)] for rng in spec.RNGS}
    assert found == {
        "philox": [0, 1, 2**24 - 1, 2**24],
        "keras_tf": [0, 1, 2**23, 2**23],
        "keras_tf_xla": [0, 1, 2**23, 2**23],
        "keras_jax": [2**23, 2**23, 1, 0],
    }
    assert dialects.threshold(0.001, "keras_tf", "bfloat16") == 1  # of 128: what the framework drops too many
    assert dialects.threshold(0.999, "keras_tf", "bfloat16") == 2**7
    assert dialects.threshold(0.3, "keras_tf", "float16") == math.ceil(Fraction(float(np.float16(0.3))) * 2**10)


@given(rate=st.floats(0, 1) | st.integers(0, 20000).map(lambda k: k / 20000), pair=st.sampled_from(PAIRS))
def test_the_stored_ratio_gives_the_frameworks_threshold(rate: float, pair: tuple[str, str]) -> None:
    rng, name = pair
    ratio = dialects.ratio_for(rate, rng, spec.DTYPES[name])
    assert ratio == float(np.float32(ratio))
    assert 0.0 <= ratio <= 1.0
    got = dialects.threshold(ratio, rng, spec.DTYPES[name])
    if rng == "keras_jax":
        assert got == math.ceil(Fraction(float(np.float32(1.0 - rate))) * 2**23)
    else:  # TensorFlow rounds a double to float32 on its way to every shorter type
        assert ratio == float(np.float32(rate))


def test_jax_needs_a_ratio_beside_float32_of_the_rate() -> None:
    rates = [k / 20000 for k in range(20001)]
    moved = [rate for rate in rates if dialects.ratio_for(rate, "keras_jax", np.float32) != np.float32(rate)]
    assert 0 < len(moved) < 4000
    assert all(abs(dialects.ratio_for(rate, "keras_jax", np.float32) - rate) < 2**-23 for rate in moved)


@pytest.mark.parametrize(("rng", "name"), [("keras_tf", "float64"), ("keras_tf_xla", "float64")])
@pytest.mark.parametrize("training", [True, False])
def test_a_type_that_a_dialect_lacks_is_refused(rng: str, name: str, training: bool) -> None:
    allowed = ", ".join(dialects.DIALECTS[rng].tests)
    message = f"node 'd': rng '{rng}' draws no masks for X of type {name}; allowed with it: {allowed}; cast X"
    with pytest.raises(SpecError, match=re.escape(message)):
        reference.spatial_dropout(np.zeros((2, 2), name), [], 0.5, 1, 0, training, rng=rng, where="node 'd'")
    with pytest.raises(SpecError, match=re.escape(message)):
        dialects.ratio_for(0.5, rng, name, "node 'd'")


def test_a_rate_out_of_range_is_refused() -> None:
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(SpecError, match=re.escape(f"node 'd': rate is {rate}; it must lie in [0, 1]")):
            dialects.ratio_for(rate, "keras_jax", np.float32, "node 'd'")


def test_values_and_scale_do_not_depend_on_the_dialect() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(ml_dtypes.bfloat16)
    for rng in spec.RNGS:
        y, mask = reference.spatial_dropout(x, [2], 0.3, 5, 2, scale=1.4285714, rng=rng)
        expected = np.where(mask, x.astype(np.float32) * np.float32(ml_dtypes.bfloat16(1.4285714)), 0)
        np.testing.assert_array_equal(y, expected.astype(x.dtype))
