"""The definition's arithmetic, and its refusals."""

import math
import re
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_spatialdrop import SpecError
from onnx_spatialdrop.operator import spec

RATES = [k / 1000 for k in range(1000)]


@given(st.floats(0, 1, width=32))
def test_threshold_is_the_exact_ceiling(ratio: float) -> None:
    assert spec.threshold(ratio) == math.ceil(Fraction(ratio) * 2**24)


def test_threshold_at_the_ends() -> None:
    assert (spec.threshold(0.0), spec.threshold(1.0)) == (0, 2**24)
    assert spec.threshold(np.nextafter(np.float32(0), np.float32(1))) == 1


def test_explicit_scale_is_the_frameworks_and_the_float32_ratio_is_not_enough() -> None:
    explicit = [spec.explicit_scale(rate) for rate in RATES]
    frameworks = [float(np.float32(1 / (1 - rate))) for rate in RATES]
    assert explicit == frameworks
    derived = [float(spec.kept_scale(rate, 0.0, np.dtype(np.float32))) for rate in RATES]
    assert 300 < sum(a != b for a, b in zip(derived, frameworks, strict=True)) < 500  # about 4 in 10


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_explicit_scale_is_rounded_to_the_type_and_held_by_a_float32(dtype: type) -> None:
    for rate in RATES:
        assert np.float32(spec.explicit_scale(rate, np.dtype(dtype))) == np.asarray(1 / (1 - rate)).astype(dtype)


def test_scale_of_ratio_one_is_finite_and_scale_zero_means_the_inverse() -> None:
    assert spec.explicit_scale(1.0) == 1.0
    assert spec.kept_scale(1.0, 0.0, np.dtype(np.float64)) == 1.0
    assert spec.kept_scale(0.25, 0.0, np.dtype(np.float64)) == 1 / 0.75
    assert spec.kept_scale(0.25, 3.0, np.dtype(np.float16)) == 3.0


@pytest.mark.parametrize(
    ("seed", "stored"), [(0, 0), (2**64 - 1, -1), (2**63, -(2**63)), (-5, -5), (2**63 - 1, 2**63 - 1)]
)
def test_seeds_are_stored_in_twos_complement(seed: int, stored: int) -> None:
    assert spec.signed_seed(seed) == stored


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.5}, "node 'd': ratio is 1.5; it must lie in [0, 1]"),
        ({"ratio": -0.1}, "node 'd': ratio is -0.1; it must lie in [0, 1]"),
        ({"ratio": math.nan}, "node 'd': ratio is nan; it must lie in [0, 1]"),
        ({"axes": (1, 1)}, "node 'd': axes [1, 1] name an axis twice; name each once"),
        ({"axes": (16,)}, "node 'd': axes [16] exceed the largest rank, 16"),
        (
            {"rng": "mersenne"},
            "node 'd': rng is 'mersenne'; this version knows 'philox', 'keras_tf', 'keras_tf_xla', 'keras_jax'",
        ),
        ({"seed": 2**64}, f"node 'd': seed is {2**64}; it must fit in 64 bits, [-2**63, 2**64)"),
    ],
)
def test_refused_attributes(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        spec.Attributes(**({"axes": (2,), "ratio": 0.5, "seed": 1, "where": "node 'd'"} | arguments))


def test_axes_are_normalised_and_checked_against_the_rank() -> None:
    assert spec.normalize_axes([-1, 1], 4) == (1, 3)
    assert spec.normalize_axes([], 1) == ()
    with pytest.raises(SpecError, match=re.escape("axis 4 is out of range for rank 4; allowed: [-4, 3]")):
        spec.normalize_axes([4], 4)
    with pytest.raises(SpecError, match="name an axis of a rank-4 tensor twice"):
        spec.normalize_axes([3, -1], 4)
    with pytest.raises(SpecError, match="X has rank 17; ranks 1 to 16 are allowed"):
        spec.normalize_axes([0], 17)
    with pytest.raises(SpecError, match="X has rank 0"):
        spec.normalize_axes([], 0)


def test_mask_shape() -> None:
    assert spec.mask_shape((2, 3, 4, 5), (-1, 2)) == (2, 3, 1, 1)
    assert spec.mask_shape((0, 3), (0,)) == (1, 3)


@pytest.mark.parametrize(
    ("step", "mask", "batch", "message"),
    [
        ([1, 2], (4, 1), 4, "step has 2 elements; allowed: 1, or 4 (the size of X's dim 0)"),
        ([], (4, 1), 4, "step has 0 elements; allowed: 1, or 4"),
        ([1, 2, 3, 4], (1, 5), 4, "step has 4 elements but axis 0 is shared; give it one element"),
        ([0, -1], (2, 1), 2, "step[1] is -1; in a step of several elements none may be negative"),
    ],
)
def test_refused_steps(step: list[int], mask: tuple[int, ...], batch: int, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        spec.check_step(step, mask, batch)
