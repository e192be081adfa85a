"""What sizes are: numbers, dimensions of values, and products of both. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

__all__ = ["END", "Dim", "DimOf", "DimProduct", "Dims", "OpaqueDim", "ShapeOf", "over", "times"]

#: From here on the end of a slice means the end of the axis; tf2onnx writes this number, others the largest they have.
END: Final = 10**9


@dataclass(frozen=True)
class DimOf:
    """Dimension ``axis`` of ``value``."""

    value: ir.Value
    axis: int


@dataclass(frozen=True)
class ShapeOf:
    """The whole shape of ``value``, whose rank is unknown."""

    value: ir.Value


@dataclass(frozen=True)
class OpaqueDim:
    """Entry ``index`` of the integer tensor ``value``, computed in a way that is not followed."""

    value: ir.Value
    index: int


@dataclass(frozen=True)
class DimProduct:
    """``number`` times the dimensions ``factors``."""

    number: int
    factors: tuple[DimOf | OpaqueDim, ...]


Dim = int | DimOf | OpaqueDim | DimProduct
Dims = tuple[Dim, ...]


def times(a: Dim, b: Dim) -> Dim:
    """Return the product of two sizes."""
    number, factors = 1, list[DimOf | OpaqueDim]()
    for dim in (a, b):
        number *= dim if isinstance(dim, int) else dim.number if isinstance(dim, DimProduct) else 1
        factors += dim.factors if isinstance(dim, DimProduct) else [dim] if not isinstance(dim, int) else []
    if not factors or not number:
        return number
    return factors[0] if number == 1 and len(factors) == 1 else DimProduct(number, tuple(factors))


def over(a: Dim, b: Dim) -> Dim | None:
    """Return a size divided by another where that leaves no rest; None where that is not known."""
    number, factors = (a.number, list(a.factors)) if isinstance(a, DimProduct) else (1, [a])
    divisor, others = (
        (b.number, b.factors) if isinstance(b, DimProduct) else (b, ()) if isinstance(b, int) else (1, (b,))
    )
    if isinstance(a, int) or divisor <= 0 or number % divisor:
        return None
    for other in others:
        if other not in factors:
            return None
        factors.remove(other)
    result: Dim = number // divisor
    for factor in factors:
        result = times(result, factor)
    return result
