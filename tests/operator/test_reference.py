"""The NumPy reference: what is dropped, what is kept, and how values are rounded."""

import re

import ml_dtypes
import numpy as np
import pytest
from building import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from onnx_spatialdrop import SpecError, reference
from onnx_spatialdrop.operator import philox, spec

DTYPES = list(spec.DTYPES.values())


def test_the_mask_entry_by_entry() -> None:
    """Row-major entries, R rows, (word >> 8) >= T: the definition written out as loops."""
    shape, axes, ratio, seed = (3, 5, 2, 4), (1, 3), 0.37, 2**64 - 3
    for step in ([9], [2**33, 0, 5]):
        mask = reference.dropout_mask(shape, axes, ratio, seed, step)
        assert mask.shape == (3, 1, 2, 1)
        row = mask.size // len(step)
        for index, kept in enumerate(mask.reshape(-1)):
            r, entry = divmod(index, row)
            counter = [entry // 4, 0, step[r] & 0xFFFFFFFF, step[r] >> 32]
            word = int(philox.philox4x32(counter, [(seed & 0xFFFFFFFF), seed >> 32])[entry % 4])
            assert kept == ((word >> 8) >= spec.threshold(ratio))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kept_values_are_rounded_once_and_dropped_ones_are_plus_zero(dtype: np.dtype) -> None:
    x = np.array([-1.1, np.inf, -np.inf, np.nan, 3.3, -0.0, 1e-7, 500.0] * 4).astype(dtype)
    y, mask = reference.spatial_dropout(x, [], 0.3, 5, 0, True, scale=1.4285714)
    # Exact products of 53 and 24 bits do not exist in double, so double is compared with its own product.
    exact = x.astype(np.float64) * float(np.asarray(np.float64(np.float32(1.4285714))).astype(dtype))
    assert_same_bits(y, np.where(mask, exact, 0.0).astype(dtype))
    assert not np.signbit(y[~mask]).any()
    assert 0 < mask.sum() < mask.size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inference_is_the_input_bit_for_bit(dtype: np.dtype) -> None:
    x = np.random.default_rng(0).integers(0, 256, 64 * dtype.itemsize, np.uint8).view(dtype).reshape(4, 16)
    y, mask = reference.spatial_dropout(x, [1], 0.9, 5, 0, training_mode=False)
    np.testing.assert_array_equal(y.view(np.uint8), x.view(np.uint8))
    assert y is not x
    assert mask.all()
    assert mask.shape == (4, 1)


def test_ratio_zero_keeps_all_and_ratio_one_drops_all() -> None:
    x = np.full((50, 50), np.nan, np.float32)
    assert reference.dropout_mask(x.shape, [], 0.0, 1, 0).all()
    y, mask = reference.spatial_dropout(x, [], 1.0, 1, 0)
    assert not mask.any()
    assert_same_bits(y, np.zeros_like(x))


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    data=st.data(),
    ratio=st.floats(0, 1, width=32),
    seed=st.integers(-(2**63), 2**64 - 1),
)
def test_a_samples_mask_does_not_depend_on_its_batch(
    shape: list[int], data: st.DataObject, ratio: float, seed: int
) -> None:
    axes = data.draw(st.lists(st.integers(1, len(shape) - 1), unique=True)) if len(shape) > 1 else []
    steps = data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=shape[0], max_size=shape[0]))
    if shape[0] == 0:
        return
    whole = reference.dropout_mask(shape, axes, ratio, seed, steps)
    for sample, step in enumerate(steps):
        alone = reference.dropout_mask([1, *shape[1:]], axes, ratio, seed, [step])
        np.testing.assert_array_equal(whole[sample : sample + 1], alone)


@pytest.mark.parametrize(
    ("shape", "axes", "step"), [((0, 3), [1], [0]), ((0, 3), [1], []), ((2, 0, 3), [2], [1, 2]), ((2, 0), [1], [3])]
)
def test_empty_tensors_are_no_error(shape: tuple[int, ...], axes: list[int], step: list[int]) -> None:
    y, mask = reference.spatial_dropout(np.zeros(shape, np.float32), axes, 0.5, 1, step)
    assert y.shape == shape
    assert mask.shape == spec.mask_shape(shape, axes)


def test_small_ratios_are_not_biased_by_16_bit_types() -> None:
    mask = reference.dropout_mask((1_000_000,), [], 0.001, 3, 0)
    assert abs((~mask).mean() - 0.001) < 5 * np.sqrt(0.001 / 1e6)
    x = np.ones(1_000_000, ml_dtypes.bfloat16)
    assert (reference.spatial_dropout(x, [], 0.001, 3, 0)[0] == 0).sum() == (~mask).sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((2, 2), np.int32)}, "X has type int32; allowed: float16, bfloat16, float32, float64"),
        ({"step": -1}, "step is -1; a fresh draw needs a session that counts, so give 0 or more"),
        ({"step": 1.5}, "step has type float64; it must be int64"),
        ({"step": [1, 2, 3], "training_mode": False}, "step has 3 elements; allowed: 1, or 2"),
    ],
)
def test_refusals_name_who_asks(arguments: dict[str, object], message: str) -> None:
    call = {"x": np.zeros((2, 2), np.float32), "axes": [1], "ratio": 0.5, "seed": 1, "where": "node 'd'"} | arguments
    with pytest.raises(SpecError, match=re.escape(f"node 'd': {message}")):
        reference.spatial_dropout(**call)
