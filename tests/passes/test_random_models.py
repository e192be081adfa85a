"""Random models with dropout in them, and what has to hold of every one; see tests/random_models."""

from __future__ import annotations

import warnings

import pytest
from installed import NEWEST_OPSET
from random_models.models import random_pair
from random_models.oracles import problems

pytestmark = pytest.mark.skipif(NEWEST_OPSET < 25, reason="needs an ONNX Runtime that knows the newest opsets")


def failures(seeds: range) -> dict[int, list[str]]:
    """Return what does not hold of the random models of these numbers."""
    found = {}
    for seed in seeds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of onnx's ReferenceEvaluator, which overflows aloud
            wrong = list(problems(random_pair(seed)))
        if wrong:
            found[seed] = wrong
    return found


@pytest.mark.parametrize("start", range(0, 100, 25))
def test_rewrites_of_random_models(start: int) -> None:
    assert failures(range(start, start + 25)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 20_000, 500))
def test_rewrites_of_many_random_models(start: int) -> None:
    assert failures(range(start, start + 500)) == {}
