"""What a call is given: inputs by name in the model's types, and the step that each row begins with."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.errors import SpecError

__all__ = ["STRIDE", "Inputs", "anew", "feeds", "first_steps"]

Array = npt.NDArray[Any]
Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike]

#: Steps that a row may use: the first step of id i is i * STRIDE.
STRIDE: Final = 1 << 20


def first_steps(ids: npt.ArrayLike, strata: int = 1) -> Array:
    """Return the first step of each row, int64 [N]: id * S, with S = 2**20 rounded down to a multiple of ``strata``.

    Raises:
        SpecError: an id that is no integer, negative, or 2**63 / S or more.
    """
    given = np.asarray(ids)
    stride = _stride(strata)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise SpecError(f"ids are of type {given.dtype} and shape {given.shape}; integers of shape [N] are needed")
    if given.size and not (int(given.min()) >= 0 and int(given.max()) < 2**63 // stride):
        raise SpecError(f"ids lie in [{given.min()}, {given.max()}]; allowed: 0 to {2**63 // stride - 1}")
    return given.astype(np.int64) * stride


def _stride(strata: int) -> int:
    return STRIDE // strata * strata


def anew(first: Array, strata: int = 1) -> Array:
    """Return first steps that nobody has used before, as far as chance goes."""
    stride = _stride(strata)
    shift = secrets.randbelow(2**42)
    return np.asarray((first // stride + shift) % (2**63 // stride) * stride)


def feeds(inputs: Inputs, values: Sequence[ir.Value], batch: str) -> tuple[dict[str, Array], int]:
    """Return the inputs by name, as arrays of the model's types, and how many rows there are.

    Args:
        inputs: an array, or several by name or in the order of the inputs without a default.
        values: the model's inputs.
        batch: the input whose first axis is the batch.

    Raises:
        SpecError: inputs are missing, unknown, of another type, or without a batch.
    """
    required = [value.name or "" for value in values if value.const_value is None]
    known = {value.name or "": value for value in values}
    given = _named(inputs, required)
    for name in given:
        if name not in known:
            raise SpecError(f"the model has no input {name!r}; it has {', '.join(map(repr, known))}")
    missing = [name for name in required if name not in given]
    if missing:
        raise SpecError(f"input {missing[0]!r} is missing")
    arrays = {name: _array(known[name], value) for name, value in given.items()}
    shape = arrays[batch].shape
    if not shape or not shape[0]:
        raise SpecError(f"input {batch!r} has shape {shape}; its first axis is the batch, of 1 row or more")
    return arrays, shape[0]


def _named(inputs: Inputs, required: list[str]) -> dict[str, npt.ArrayLike]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if len(required) == 1:
        return {required[0]: np.asarray(inputs)}
    if not isinstance(inputs, (tuple, list)):
        raise SpecError(f"the model has several inputs; give a mapping with {', '.join(required)}")
    if len(inputs) != len(required):
        raise SpecError(f"{len(inputs)} inputs are given; the model has {len(required)}: {', '.join(required)}")
    return dict(zip(required, inputs, strict=True))


def _array(value: ir.Value, given: npt.ArrayLike) -> Array:
    array = np.asarray(given)
    wanted = None if value.dtype is None else np.dtype(value.dtype.numpy())
    if wanted is not None and array.dtype != wanted:
        if array.dtype.kind != wanted.kind and not (array.dtype.kind == "i" and wanted.kind == "f"):
            raise SpecError(f"input {value.name!r} is of type {array.dtype}; the model takes {wanted}")
        array = array.astype(wanted)
    return array
