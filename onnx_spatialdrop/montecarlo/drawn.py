"""Draws as arrays: outputs as what their mean is taken of, and the sums that statistics are made of. In float64.

The formulas are those of accumulate.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["as_probabilities", "sums_of"]

Array = npt.NDArray[Any]


def as_probabilities(target: Target, y: Array, lead: int = 0) -> Array:
    """Return an output as what its mean is taken of; ``lead`` axes stand before those of the output."""
    y = y.astype(np.float64)
    if target.given in ("values", "probabilities"):
        return y
    if target.given == "log_probabilities":
        return np.exp(y)
    if target.task == "binary":
        return np.asarray(1 / (1 + np.exp(-y)))
    axis = target.axis + lead
    power = np.exp(y - y.max(axis=axis, keepdims=True))
    return np.asarray(power / power.sum(axis=axis, keepdims=True))


def sums_of(target: Target, p: Array, log_variance: Array | None) -> dict[str, Array]:
    """Return the sums over draws [T, N, ...] that Statistics takes."""
    mean = p.mean(axis=0)
    sums = {"mean": mean, "squares": ((p - mean) ** 2).sum(axis=0)}
    if log_variance is not None:
        sums["noise"] = np.exp(log_variance.astype(np.float64)).mean(axis=0)
    if target.kind != "classes":
        return sums
    each, of_mean = _negentropy(p), _negentropy(mean)
    if target.task == "binary":
        each, of_mean = each + _negentropy(1 - p), of_mean + _negentropy(1 - mean)
        sums["votes"] = (p > 0.5).sum(axis=0).astype(np.float64)
    else:
        axis = target.axis
        each, of_mean = each.sum(axis=axis + 1), of_mean.sum(axis=axis)
        best = np.expand_dims(p.argmax(axis=axis + 1), axis + 1)
        classes = np.arange(p.shape[axis + 1]).reshape(-1, *([1] * (p.ndim - axis - 2)))
        sums["votes"] = (best == classes).sum(axis=0).astype(np.float64)
    sums["divergence"] = np.maximum((each - of_mean).sum(axis=0), 0)
    return sums


def _negentropy(p: Array) -> Array:
    return np.asarray(p * np.log(np.maximum(p, 1e-300)))
