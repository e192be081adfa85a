"""The masks that Keras's own layers drew, bit for bit from the reference. Needs no Keras."""

from __future__ import annotations

from functools import cache
from itertools import islice

import numpy as np
import pytest
from keras_draws import RATES, SEEDS, STEPS, draws, recorded, versions

from onnx_spatialdrop.operator.dialects import DIALECTS, kept, ratio_for, threshold, words
from onnx_spatialdrop.operator.reference import dropout_mask
from onnx_spatialdrop.operator.spec import DTYPES

DRAWN = [(rng, dtype) for rng in SEEDS for dtype in ("float16", "bfloat16", "float32")]


def test_the_recordings_are_whole_and_say_what_wrote_them() -> None:
    assert versions() == {
        "jax": {"jax": "0.10.2", "jaxlib": "0.10.2", "keras": "3.15.1"},
        "tensorflow": {"keras": "3.15.1", "tensorflow": "2.21.0"},
    }
    assert set(SEEDS) | {"philox"} == set(DIALECTS)
    for rng, seeds in SEEDS.items():
        found = recorded(rng)
        np.testing.assert_array_equal(found["rates"], RATES)
        np.testing.assert_array_equal(found["seeds"], seeds)
        assert len(list(draws(rng, "float32"))) == 20 * 21 * STEPS


@pytest.mark.parametrize("rng", SEEDS)
def test_the_counter_moves_by_one_a_call_but_not_at_rates_0_and_1(rng: str) -> None:
    states = recorded(rng)["states"]
    assert (states[:, :, 0] == -1).all()  # such a layer has no generator
    assert (states[:, :, 1:-1] == np.arange(1, STEPS + 1)).all()
    assert (states[:, :, -1] == 0).all()


@pytest.mark.parametrize(("rng", "dtype"), DRAWN)
class TestEveryRecordedMask:
    def test_is_one_integer_test_on_the_words_of_its_stream(self, rng: str, dtype: str) -> None:
        for draw in draws(rng, dtype):
            words = cached_words(rng, draw.seed)[draw.step, : draw.mask.size]
            limit = threshold(ratio_for(draw.rate, rng, DTYPES[dtype]), rng, DTYPES[dtype])
            drawn = kept(words, rng, DTYPES[dtype], limit).reshape(draw.mask.shape)
            np.testing.assert_array_equal(drawn, draw.mask, str(draw[2:5]))

    def test_is_what_the_reference_draws(self, rng: str, dtype: str) -> None:
        for draw in islice(draws(rng, dtype), 0, None, 8):  # each rate, each layer and each step among them
            ratio = ratio_for(draw.rate, rng, DTYPES[dtype])
            mask = dropout_mask(draw.shape, draw.axes, ratio, draw.seed, draw.step, rng=rng, dtype=DTYPES[dtype])
            np.testing.assert_array_equal(mask, draw.mask, str(draw[2:5]))


@cache
def cached_words(rng: str, seed: int) -> np.ndarray:
    return words(rng, seed, np.arange(STEPS), 64)


def test_a_layers_rate_is_not_always_the_ratio_to_store() -> None:
    moved = [rate for rate in RATES if ratio_for(rate, "keras_jax", np.float32) != np.float32(rate)]
    assert moved == [0.6, 0.85]
