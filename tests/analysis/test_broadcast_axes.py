"""Along which axes of x a mask shares its entries, and when that is not known."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import pytest

from onnx_spatialdrop.analysis.broadcast_axes import kind_of_axes, shared_axes
from onnx_spatialdrop.analysis.dim_algebra import DimOf, Dims, ShapeOf
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import Layout
from onnx_spatialdrop.graph.constants import Constants


def value(shape: Sequence[int | str | None] | None) -> ir.Value:
    return ir.Value(name="v", shape=None if shape is None else ir.Shape(shape))


def axes(
    x: ir.Value, entries: Dims | ShapeOf, y: Sequence[int | str | None] | None = None
) -> tuple[tuple[int, ...] | None, str]:
    found, _, problem = shared_axes(x, value(y), Layout(entries, entries), Shapes(Constants()))
    return found, problem


@pytest.mark.parametrize(
    ("shape", "entries", "expected"),
    [
        ((2, 3, 4, 5), (2, 3, 1, 1), (2, 3)),
        ((2, 3, 4, 5), (2, 1, 1, 5), (1, 2)),
        ((2, 3, 4, 5), (3, 1, 1), (0, 2, 3)),
        ((2, 3, 4, 5), (2, 3, 4, 5), ()),
        ((2, 3, 1, 5), (2, 3, 1, 1), (2, 3)),  # spelled out on a map of height 1
        ((2, 3), (2, 1), (1,)),
    ],
)
def test_axes_of_fixed_shapes(shape: tuple[int, ...], entries: Dims, expected: tuple[int, ...]) -> None:
    assert axes(value(shape), entries) == (expected, "")


def test_sizes_that_are_read_from_x_are_those_of_x() -> None:
    x = value(("N", 3, None, None))
    assert axes(x, (DimOf(x, 0), DimOf(x, 1), 1, 1)) == ((2, 3), "")
    assert axes(x, (DimOf(x, 0), 1, DimOf(x, 2), DimOf(x, 3))) == ((1,), "")


def test_a_mask_of_the_shape_of_x_has_an_entry_an_element() -> None:
    x = value(None)
    assert axes(x, ShapeOf(x)) == ((), "")


@pytest.mark.parametrize(
    ("shape", "entries", "problem"),
    [
        (None, (2, 3, 1, 1), "the rank of x is not known"),
        ((3, 4), (2, 3, 4), "the mask has 3 dimensions and x has 2: the mask repeats x"),
        ((2, 3, 1), (2, 3, 4), "along axis 2 the mask repeats x, which has size 1 there"),
        ((2, 3, 5), (2, 3, 4), "along axis 2 the mask has size 4, and x is said to have size 5"),
        (("N", 3, 4), (2, 3, 1), "along axis 0 the mask has size 2, and that of x is open: it may repeat x"),
    ],
)
def test_what_is_not_proven_is_said(shape: tuple[int | str, ...] | None, entries: Dims, problem: str) -> None:
    assert axes(value(shape), entries) == (None, problem)


def test_a_fixed_batch_at_an_open_one_is_proven_by_the_products_shape() -> None:
    assert axes(value(("N", 3, 4)), (2, 3, 1), y=("N", 3, 4)) == ((2,), "")
    assert axes(value(("N", 3, 4)), (2, 3, 1), y=(2, 3, 4))[0] is None
    assert axes(value((None, 3, 4)), (2, 3, 1), y=(None, 3, 4))[0] is None


def test_a_size_of_something_else_is_not_that_of_x() -> None:
    other = value(("M", 3, 4))
    assert (
        axes(value(("N", 3, 4)), (DimOf(other, 0), 3, 1))[1]
        == "along axis 0 the mask's size is not known to be that of x"
    )


@pytest.mark.parametrize(
    ("shared", "rank", "kind"),
    [((), 4, "elementwise"), ((2, 3), 4, "spatial"), ((1, 2, 3), 4, "drop_path"), ((0,), 3, "variational")],
)
def test_kinds(shared: tuple[int, ...], rank: int, kind: str) -> None:
    assert kind_of_axes(shared, rank) == kind
