"""Sizes as numbers times dimensions, so that N * C entries cut into rows of C are N rows. Reads the graph only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Final, Protocol

import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import Dim, DimOf, DimProduct, Dims, ShapeOf

__all__ = ["divided", "same_size", "spelled"]

_DEPTH: Final = 8

#: A number, and how often each dimension is a factor.
Size = tuple[int, Counter[Hashable]]


class Known(Protocol):
    """What has to be known of shapes."""

    def size(self, dim: Dim) -> int | str | None:
        """Return a dimension's number or name, where it has one."""

    def origin(self, dim: DimOf) -> DimOf:
        """Return the dimension furthest back that ``dim`` is."""

    def like(self, shape: ir.Value | None) -> Dims | ShapeOf | None:
        """Return the shape that an integer tensor spells."""

    def of(self, value: ir.Value) -> Dims | ShapeOf:
        """Return the shape of a value."""


def same_size(known: Known, a: Dim, b: Dim) -> bool:
    """Return whether two sizes are equal for every input."""
    one, two = (_size(known, dim, _DEPTH) for dim in (a, b))
    return one is not None and one == two


def spelled(known: Known, dim: Dim) -> tuple[int, Hashable] | None:
    """Return a size as a number times what equals for equal sizes: a name, None for 1; None where it is not known."""
    size = _size(known, dim, _DEPTH)
    if size is None:
        return None
    number, factors = size
    alone = next(iter(factors), None) if factors.total() == 1 else frozenset(factors.items())
    return number, None if not factors else alone


def divided(known: Known, whole: Dims, parts: Dims) -> Dim | None:
    """Return the size that with ``parts`` has as many entries as ``whole``; None where no single one is known."""
    dividend, divisor = (_product(known, dims, _DEPTH) for dims in (whole, parts))
    if dividend is None or divisor is None or not divisor[0] or dividend[0] % divisor[0] or divisor[1] - dividend[1]:
        return None
    rest = dividend[1] - divisor[1]
    # What is left is written in the words of the file: one of its own dimensions, where one says it.
    for dim in whole:
        if _size(known, dim, _DEPTH) == (dividend[0] // divisor[0], rest):
            return dim
        for factor in dim.factors if isinstance(dim, DimProduct) else ():
            if _size(known, factor, _DEPTH) == (dividend[0] // divisor[0], rest):
                return factor
    return dividend[0] // divisor[0] if not rest else None


def _product(known: Known, dims: Dims, depth: int) -> Size | None:
    number, factors = 1, Counter[Hashable]()
    for dim in dims:
        size = _size(known, dim, depth)
        if size is None:
            return None
        number *= size[0]
        factors += size[1]
    return number, factors


def _size(known: Known, dim: Dim, depth: int) -> Size | None:
    if depth == 0:
        return None
    if isinstance(dim, int):
        return (dim, Counter()) if dim >= 0 else None
    if isinstance(dim, DimProduct):
        inner = _product(known, dim.factors, depth - 1)
        return None if inner is None else (dim.number * inner[0], inner[1])
    size = known.size(dim)
    if isinstance(size, int):
        return size, Counter()
    if not isinstance(dim, DimOf):
        return 1, Counter([dim])
    origin = known.origin(dim)
    spelled = _reshaped(known, origin, depth - 1)
    if spelled is not None:
        return spelled
    size = known.size(origin)
    if isinstance(size, int):
        return size, Counter()
    return 1, Counter([size if size is not None else origin])


def _reshaped(known: Known, dim: DimOf, depth: int) -> Size | None:
    """Return what the target of a Reshape says of one of its result's dimensions."""
    node = dim.value.producer()
    if node is None or node.domain or node.op_type != "Reshape" or len(node.inputs) < 2 or node.inputs[0] is None:
        return None
    target, source = known.like(node.inputs[1]), known.of(node.inputs[0])
    if not isinstance(target, tuple) or dim.axis >= len(target):
        return None
    if not isinstance(source, tuple):
        spelled = target[dim.axis]
        return None if spelled in (0, -1, dim) else _size(known, spelled, depth)
    resolved = tuple(source[axis] if d == 0 and axis < len(source) else d for axis, d in enumerate(target))
    wanted = resolved[dim.axis]
    if wanted != -1:
        return None if isinstance(wanted, DimOf) and wanted == dim else _size(known, wanted, depth)
    rest = tuple(d for axis, d in enumerate(resolved) if axis != dim.axis)
    whole, part = _product(known, source, depth), _product(known, rest, depth)
    if whole is None or part is None or not part[0] or whole[0] % part[0] or part[1] - whole[1]:
        return None
    return whole[0] // part[0], whole[1] - part[1]
