"""Ratios as somebody wrote them down, recovered from what a file holds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_spatialdrop.analysis.values import half_ulp, recover


@pytest.mark.parametrize(
    "written", [k / 20 for k in range(1, 20)] + [0.001, 0.125, 0.3333, 0.99999, 1 / 3, 2 / 7, 5 / 12]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ratios_are_recovered_from_what_a_file_rounded(written: float, dtype: type) -> None:
    precision = half_ulp(np.dtype(dtype))
    assert recover(float(dtype(written)), precision) == written
    assert recover(1.0 - float(dtype(1.0 - written)), precision) == written


@pytest.mark.parametrize("written", [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1 / 3])
def test_ratios_that_went_through_float16_are_recovered(written: float) -> None:
    assert recover(float(np.float16(written)), half_ulp(np.dtype(np.float32))) == written
    assert recover(1.0 - float(np.float16(1.0 - written)), half_ulp(np.dtype(np.float32))) == written


@pytest.mark.parametrize("odd", [0.123456789, 0.7654321098, 2.0**-20])
def test_what_nobody_writes_stays_as_it_is(odd: float) -> None:
    assert recover(odd, 2.0**-25) == odd


def test_half_a_unit_in_the_last_place() -> None:
    assert half_ulp(np.dtype(np.float16)) == 2.0**-12
    assert half_ulp(np.dtype(ml_dtypes.bfloat16)) == 2.0**-9
    assert half_ulp(np.dtype(np.float32)) == half_ulp(np.dtype(np.float64)) == 2.0**-25
