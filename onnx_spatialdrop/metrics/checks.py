"""Arrays that metrics are given, checked: one error that names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError

__all__ = ["Array", "labelled", "numbers", "same_shape"]

Array = npt.NDArray[Any]


def numbers(values: npt.ArrayLike, name: str) -> Array:
    """Return numbers in float64.

    Raises:
        SpecError: there are none, or one is NaN or infinite.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not array.size:
        raise SpecError(f"{name} is of type {array.dtype} and shape {array.shape}; numbers are needed")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise SpecError(f"{name} holds NaN or infinity")
    return array


def labelled(probabilities: npt.ArrayLike, labels: npt.ArrayLike, axis: int = -1) -> tuple[Array, Array]:
    """Return probabilities [rows, classes] and labels [rows]; all axes but that of classes become rows.

    Raises:
        SpecError: shapes that do not fit, probabilities outside [0, 1], or labels that are no classes.
    """
    p, y = numbers(probabilities, "probabilities"), np.asarray(labels)
    if p.ndim < 2 or not -p.ndim <= axis < p.ndim:
        raise SpecError(f"probabilities have shape {p.shape}; rows and classes are needed, and axis {axis} for classes")
    p = np.moveaxis(p, axis, -1)
    if y.shape != p.shape[:-1]:
        raise SpecError(f"labels have shape {y.shape}; probabilities ask for {p.shape[:-1]}")
    if y.dtype.kind not in "biu" or y.min() < 0 or y.max() >= p.shape[-1]:
        raise SpecError(f"labels must be integers from 0 to {p.shape[-1] - 1}")
    if p.min() < 0 or p.max() > 1 + 1e-5:
        raise SpecError(f"probabilities lie in [{p.min():g}, {p.max():g}]; they must lie in [0, 1]")
    return p.reshape(-1, p.shape[-1]), y.reshape(-1).astype(np.int64)


def same_shape(**arrays: npt.ArrayLike) -> list[Array]:
    """Return arrays of numbers of one shape, flat.

    Raises:
        SpecError: their shapes differ.
    """
    made = {name: numbers(values, name) for name, values in arrays.items()}
    shapes = {array.shape for array in made.values()}
    if len(shapes) != 1:
        raise SpecError("; ".join(f"{name} has shape {array.shape}" for name, array in made.items()))
    return [array.reshape(-1) for array in made.values()]
