"""The statistical tests of docs/statistics.md, shorter; generators of too few rounds have to fail them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_spatialdrop.operator import dialects, stratified

pytest.importorskip("scipy")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "randomness.py"
if not SCRIPT.exists():
    pytest.skip("a source distribution has no benchmarks", allow_module_level=True)
TESTS: dict[str, Any] = runpy.run_path(str(SCRIPT))
GENERATORS = TESTS["GENERATORS"]
MANY, FEW = 10**5, 2**10


@pytest.mark.parametrize(
    ("name", "rng"), [("philox", "philox"), ("keras_tf, keras_tf_xla", "keras_tf"), ("keras_jax",) * 2]
)
def test_what_is_tested_are_the_generators_words(name: str, rng: str) -> None:
    for seed, step in ((0, 0), (2**40 + 5, 2**35 + 1), (12345, 77)):
        got = GENERATORS[name].field(np.array([seed]), np.array([step]), np.arange(37))
        np.testing.assert_array_equal(got, dialects.words(rng, seed, [step], 37)[0])


def test_what_is_tested_of_balanced_draws_decides_their_masks() -> None:
    steps, ratio = np.arange(70), 0.25
    words = GENERATORS["philox, strata 31"].field(np.array([[9]]), steps[:, None], np.arange(100)[None])
    kept = stratified.kept_rows(9, steps, 100, stratified.threshold(ratio, 31), strata=31)
    near = np.abs(words / 2.0**32 - ratio) < 1e-6  # cut off at 32 bits
    np.testing.assert_array_equal((words >= ratio * 2**32)[~near], kept[~near])


def test_no_generator_is_rejected() -> None:
    found = {
        f"{name}: {test}": p
        for name, each in GENERATORS.items()
        for test, p in TESTS["p_values"](each, MANY, FEW).items()
    }
    adjusted = dict(zip(found, TESTS["holm"](list(found.values())), strict=True))
    assert not {test: p for test, p in adjusted.items() if p < 0.01}


@pytest.mark.parametrize("name", ["philox, 2 of 10 rounds", "philox, 3 of 10 rounds", "keras_jax, 4 of 20 rounds"])
def test_generators_of_too_few_rounds_are_rejected(name: str) -> None:
    adjusted = TESTS["holm"](list(TESTS["weakened"](MANY, FEW)[name]().values()))
    assert sum(p < 0.01 for p in adjusted) >= 20


def test_holm_is_the_textbook_s() -> None:
    np.testing.assert_allclose(TESTS["holm"]([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
