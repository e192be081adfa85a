"""What the proof of the batch axis knows of a value: where its rows are, its sizes, and small integers that it holds.

Data only. "Rows" are the samples of a batch; their number N is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

__all__ = ["Dim", "Fact", "Multiple", "Unproven", "constant", "from_type", "mixed", "product_of", "shape_of", "to_type"]

_ROWS: Final = "onnx_spatialdrop/rows*"


@dataclass(frozen=True)
class Multiple:
    """The size ``times * N``."""

    times: int


#: A size: a number, a multiple of N, a name or None; the last two stand for sizes that do not depend on N.
Dim = int | Multiple | str | None


class Unproven(Exception):  # noqa: N818 - no fault, but an answer
    """The rows cannot be followed through a node; the message says why."""


@dataclass(frozen=True)
class Fact:
    """One value.

    Attributes:
        dtype: its element type, as in onnx.TensorProto; 0 if unknown.
        dims: its sizes; None where its rank is unknown.
        axis: the axis along which its rows lie behind each other; None: all samples share the value.
        block: how many consecutive entries along ``axis`` belong to one row.
        entries: what a tensor of integers of rank 0 or 1 holds, where that is known.
        array: what a constant holds.
        mixed: why nothing of this is known; "" where it is.
        random: drawn at random, without regard to ``step``, and the same for all rows.
    """

    dtype: int = 0
    dims: tuple[Dim, ...] | None = None
    axis: int | None = None
    block: int = 1
    entries: tuple[Dim, ...] | None = None
    array: npt.NDArray[Any] | None = None
    mixed: str = ""
    random: bool = False

    @property
    def rank(self) -> int:
        """The number of axes.

        Raises:
            Unproven: it is unknown.
        """
        if self.dims is None:
            raise Unproven("the rank of an input is unknown")
        return len(self.dims)

    @property
    def counts_rows(self) -> bool:
        """Whether it holds a number that depends on N."""
        return any(isinstance(entry, Multiple) for entry in self.entries or ())

    @property
    def shared(self) -> bool:
        """Whether it is the same for every sample, and for every number of samples."""
        return not self.mixed and self.axis is None and not self.counts_rows and not self.random

    def ints(self) -> list[int]:
        """Return the integers that it holds.

        Raises:
            Unproven: they are not known.
        """
        if self.array is not None:
            return [int(number) for number in self.array.reshape(-1)]
        if self.entries is None or not all(isinstance(entry, int) for entry in self.entries):
            raise Unproven("an input that says how is not constant")
        return [entry for entry in self.entries if isinstance(entry, int)]


def mixed(reason: str, dtype: int = 0) -> Fact:
    """Return the fact of a value of which nothing is known but its type."""
    return Fact(dtype=dtype, mixed=reason)


def product_of(dims: Sequence[Dim]) -> int | None:
    """Return the product of sizes; None where one of them is no number."""
    total = 1
    for dim in dims:
        if not isinstance(dim, int):
            return None
        total *= dim
    return total


def to_type(fact: Fact) -> onnx.TypeProto:
    """Return the type that onnx's shape inference reads; multiples of N are names."""
    kind = onnx.TypeProto()
    kind.tensor_type.elem_type = fact.dtype
    if fact.dims is not None:
        kind.tensor_type.shape.SetInParent()
        for dim in fact.dims:
            written = kind.tensor_type.shape.dim.add()
            if isinstance(dim, Multiple):
                written.dim_param = f"{_ROWS}{dim.times}"
            elif isinstance(dim, int):
                written.dim_value = dim
            elif dim is not None:
                written.dim_param = dim
    return kind


def from_type(kind: onnx.TypeProto) -> Fact:
    """Return what a type says; to_type undone."""
    if kind.WhichOneof("value") != "tensor_type":
        return mixed("a value is no tensor")
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return Fact(dtype=tensor.elem_type)
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value))
        elif dim.dim_param.startswith(_ROWS):
            dims.append(Multiple(int(dim.dim_param[len(_ROWS) :])))
        else:
            dims.append(dim.dim_param or None)
    return Fact(dtype=tensor.elem_type, dims=tuple(dims))


def constant(array: npt.NDArray[Any], dtype: int) -> Fact:
    """Return the fact of a constant."""
    entries = None
    if array.ndim <= 1 and array.size <= 64 and np.issubdtype(array.dtype, np.integer):
        entries = tuple(int(number) for number in array.reshape(-1))
    small = array if array.size <= 4096 else None
    return Fact(dtype=dtype, dims=tuple(array.shape), entries=entries, array=small)


def shape_of(fact: Fact) -> ir.Shape | None:
    """Return the sizes as a model writes them; None where the rank is unknown."""
    if fact.dims is None:
        return None
    return ir.Shape([("N" if dim.times == 1 else None) if isinstance(dim, Multiple) else dim for dim in fact.dims])
