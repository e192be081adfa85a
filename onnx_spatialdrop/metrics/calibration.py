"""Is a network right as often as it says? Reliability curves, calibration error, temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.metrics.checks import Array, labelled

__all__ = ["Reliability", "calibration_error", "fit_temperature", "reliability", "with_temperature"]

_TINY = 1e-12


@dataclass(frozen=True)
class Reliability:
    """How often a network is right, by how sure it is.

    Attributes:
        confidence: the mean largest probability of each bin, float64 [bins]; NaN where a bin is empty.
        accuracy: the share of right answers of each bin, float64 [bins]; NaN where a bin is empty.
        count: rows of each bin, int64 [bins].
        edges: the bins' edges, float64 [bins + 1]; a bin holds its upper edge.
    """

    confidence: Array
    accuracy: Array
    count: Array
    edges: Array


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15, axis: int = -1) -> Reliability:
    """Return the reliability curve: rows binned by their largest probability into ``bins`` equal intervals of [0, 1].

    Args:
        probabilities: of classes, along ``axis``; in [0, 1].
        labels: the right classes, integers, of the shape of ``probabilities`` without ``axis``.
        bins: 1 or more.
        axis: the axis of classes.

    Raises:
        SpecError: shapes or values that do not fit.
    """
    bins = arguments.integer(bins, "bins", 1)
    p, y = labelled(probabilities, labels, axis)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(where, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(where, weights=right, minlength=bins) / count
    return Reliability(mean, accuracy, count, edges)


def calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15, axis: int = -1, norm: str = "l1"
) -> float:
    """Return the distance between confidence and accuracy over the bins of ``reliability``.

    "l1" is the expected calibration error, sum (count / rows) |accuracy - confidence| (Naeini et al. 2015; Guo et al.
    2017, "On calibration of modern neural networks"), "max" its largest term without the weight, "l2" the root of the
    weighted squares.

    Raises:
        SpecError: shapes or values that do not fit, or another norm.
    """
    arguments.choice(norm, "norm", ("l1", "l2", "max"))
    curve = reliability(probabilities, labels, bins=bins, axis=axis)
    filled = curve.count > 0
    gaps = np.abs(curve.accuracy[filled] - curve.confidence[filled])
    weights = curve.count[filled] / curve.count.sum()
    if norm == "max":
        return float(gaps.max())
    return float((weights * gaps).sum() if norm == "l1" else np.sqrt((weights * gaps**2).sum()))


def with_temperature(probabilities: npt.ArrayLike, temperature: float, *, axis: int = -1) -> Array:
    """Return softmax(log p / temperature) along ``axis``: above 1 it is less sure, below 1 surer (Guo et al. 2017)."""
    temperature = arguments.factor(temperature, "temperature")
    if not temperature:
        raise SpecError("temperature is 0; it must be positive")
    scaled = np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY)) / temperature
    power = np.exp(scaled - scaled.max(axis=axis, keepdims=True))
    return np.asarray(power / power.sum(axis=axis, keepdims=True))


def fit_temperature(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, axis: int = -1) -> float:
    """Return the temperature in [0.01, 100] of the least negative log-likelihood of ``labels`` (Guo et al. 2017).

    The likelihood has one maximum in 1 / temperature, which golden-section search finds. Fit it on other rows than
    those that it is judged by.
    """
    p, y = labelled(probabilities, labels, axis)
    logs = np.log(np.maximum(p, _TINY))
    rows = np.arange(len(y))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        top = scaled.max(axis=1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - scaled[rows, y]).mean())

    low, high, golden = np.log(0.01), np.log(100.0), (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))
