"""What is proven of the tensors that nodes drop from: their types and shapes, and which sizes are the same number."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import DimOf
from onnx_spatialdrop.analysis.dim_products import spelled
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.inferred import Inferred

__all__ = ["Known", "known_inputs", "known_values", "written"]

#: A tensor's type and shape, None where nobody knows.
Known = tuple[ir.TypeProtocol | None, ir.Shape | None]

_MADE_UP: Final = "onnx_spatialdrop/size"


def known_inputs(model: ir.Model, sites: Sequence[scopes.Site]) -> list[Known]:
    """Return the type and shape of the X of each of ``sites``, nodes of ``model``; see known_values."""
    return known_values(model, [site.node.inputs[0] for site in sites])


def known_values(model: ir.Model, values: Iterable[ir.Value | None]) -> list[Known]:
    """Return the type and shape of values, as inferred.py has them; the model stays as it is.

    Sizes of equal names are equal. A name is one of the main graph's inputs', where a size is proven to be theirs, or
    else made up.
    """
    names = _Names(model)
    return [(None, None) if value is None else names.known(value) for value in values]


def written(shape: Iterable[int | ir.SymbolicDim]) -> ir.Shape:
    """Return a shape as a file may say it, in which nobody knows names that are made up."""
    sizes = (dim if isinstance(dim, int) else dim.value for dim in shape)
    return ir.Shape([None if isinstance(size, str) and size.startswith(_MADE_UP) else size for size in sizes])


class _Names:
    """Gives each size one name."""

    def __init__(self, model: ir.Model) -> None:
        self._inferred = Inferred(model)
        self._shapes = Shapes(Constants((model.ir_version or 10) < 4), self._inferred)
        sizes = (dim for value in model.graph.inputs for dim in value.shape or ())
        self._declared = {dim.value for dim in sizes if isinstance(dim, ir.SymbolicDim)} - {None}
        self._made_up: dict[Hashable, str] = {}

    def known(self, x: ir.Value) -> Known:
        type_, shape = x.type, self._inferred(x)
        if type_ is None and (dtype := self._inferred.dtype(x)) is not None:
            type_ = ir.TensorType(dtype)
        if shape is None:
            return type_, None
        return type_, ir.Shape([self._named(DimOf(x, axis), dim) for axis, dim in enumerate(shape)])

    def _named(self, place: DimOf, dim: int | ir.SymbolicDim) -> int | str | None:
        if isinstance(dim, int) or dim.value in self._declared:
            return dim if isinstance(dim, int) else dim.value
        size = spelled(self._shapes, place)
        while size is not None and isinstance(size[1], str) and (first := self._inferred.first(size[1])) is not None:
            before = size
            size = spelled(self._shapes, DimOf(*first))
            if size == before:
                break
        if size is None:
            return None
        number, factors = size
        if factors is None:
            return number
        if number == 1 and factors in self._declared:
            return str(factors)
        return self._made_up.setdefault(size, f"{_MADE_UP}_{len(self._made_up)}")
