"""Sizes as numbers and dimensions: products, and what is left of them."""

from __future__ import annotations

import itertools

import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import Dim, DimOf, DimProduct, OpaqueDim, over, times

X = ir.Value(name="x")
N, C = DimOf(X, 0), DimOf(X, 1)
OTHER = OpaqueDim(X, 2)


def test_numbers_multiply_as_numbers() -> None:
    assert times(3, 4) == 12
    assert times(0, N) == 0


def test_one_changes_nothing() -> None:
    for dim in (7, N, OTHER, times(2, C)):
        assert times(1, dim) == times(dim, 1) == dim


def test_factors_are_kept_in_order_and_numbers_in_front() -> None:
    assert times(times(2, N), times(3, C)) == DimProduct(6, (N, C))
    assert times(times(N, 2), OTHER) == DimProduct(2, (N, OTHER))


def test_dividing_undoes_multiplying() -> None:
    dims: list[Dim] = [2, 5, N, C, OTHER]
    for a, b in itertools.product(dims, dims):
        product = times(a, b)
        if isinstance(product, int):
            continue  # numbers are divided as numbers, elsewhere
        assert over(product, b) == a


def test_what_leaves_a_rest_or_is_not_known_to_divide_is_not_known() -> None:
    assert over(times(3, N), 2) is None
    assert over(N, C) is None
    assert over(N, 0) is None
    assert over(times(N, N), times(N, C)) is None
    assert over(12, 4) is None
