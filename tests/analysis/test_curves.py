"""Functions of one uniform number: where they change, and that what takes more than two values is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_spatialdrop.analysis.curves import line, pick, pieces

U = line(0.0, 1.0)


@pytest.mark.parametrize(
    ("expression", "cuts", "first"),
    [
        (("Less", U, 0.3), (0.3,), 1.0),
        (("Greater", line(1.0, -1.0), 0.3), (0.7,), 1.0),
        (("Floor", ("Add", U, 0.75)), (0.25,), 0.0),
        (("Less", ("Log", U), math.log(0.2)), (0.2,), 1.0),
        (("Less", ("Elu", line(-1.0, 2.0), 0.5), 0.5 * math.expm1(-0.5)), (0.25,), 1.0),
        (("Less", ("Abs", line(-1.0, 2.0)), 0.5), (0.25, 0.75), 0.0),
        (("Xor", ("Less", U, 0.2), ("Less", U, 0.6)), (0.2, 0.6), 0.0),
        (("Where", ("Less", U, 0.5), 2.0, 3.0), (0.5,), 2.0),
    ],
)
def test_cuts_are_found_to_the_last_bit_or_so(expression: tuple, cuts: tuple[float, ...], first: float) -> None:
    found = pieces(expression)
    assert found is not None
    np.testing.assert_allclose(found.cuts, cuts, rtol=0, atol=2.0**-45)
    assert found.first == first


def test_the_share_is_the_measure_of_the_first_value() -> None:
    found = pieces(("Less", ("Abs", line(-1.0, 2.0)), 0.5))
    assert found is not None
    assert found.share == pytest.approx(0.5, abs=2.0**-40)


def test_picks_turn_at_their_cuts() -> None:
    found = pieces(pick((0.25, 0.5), 1.0, 4.0))
    assert found is not None
    assert (found.first, found.second) == (1.0, 4.0)
    assert found.cuts == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize("expression", [U, ("Floor", ("Mul", U, 3.0)), ("Log", line(-1.0, 0.5)), ("Sin", U)])
def test_more_than_two_values_or_none_at_all_are_no_mask(expression: tuple) -> None:
    assert pieces(expression) is None


def test_a_constant_has_no_cut() -> None:
    found = pieces(("Less", U, 2.0))
    assert found is not None
    assert (found.cuts, found.first, found.share) == ((), 1.0, 1.0)


@pytest.mark.parametrize("edge", [2.0**-30, 1.0 - 2.0**-30])
def test_cuts_near_the_ends_are_seen(edge: float) -> None:
    found = pieces(("Less", U, edge))
    assert found is not None
    assert found.cuts == pytest.approx((edge,), abs=2.0**-45)
