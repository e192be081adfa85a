"""Uncertainty held against the truth: one set of figures and curves for a result and its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.metrics.calibration import (
    Reliability,
    calibration_error,
    fit_temperature,
    reliability,
    with_temperature,
)
from onnx_spatialdrop.metrics.checks import Array, labelled, same_shape
from onnx_spatialdrop.metrics.regression import gaussian_nll, interval_coverage
from onnx_spatialdrop.metrics.selection import RiskCoverage, risk_coverage

__all__ = ["JudgedClasses", "JudgedValues", "judge_classes", "judge_values"]


@dataclass(frozen=True)
class JudgedClasses:
    """Classes held against labels; a row is a sample, or a pixel.

    Attributes:
        figures: what was measured, by name, in the order to show it.
        right: whether each row's likeliest class is its label, bool [rows].
        entropy: each row's, in nats, float64 [rows].
        mutual_information: each row's, in nats, float64 [rows].
        before: the reliability curve of the odd samples.
        after: the same after temperature scaling, fitted on the even samples.
        temperature: that temperature.
        by_entropy: risk over coverage, the rows of the largest entropy going first.
        by_information: the same by mutual information.
    """

    figures: dict[str, float]
    right: Array
    entropy: Array
    mutual_information: Array
    before: Reliability
    after: Reliability
    temperature: float
    by_entropy: RiskCoverage
    by_information: RiskCoverage


@dataclass(frozen=True)
class JudgedValues:
    """Values of a regression held against the true ones.

    Attributes:
        figures: what was measured, by name, in the order to show it.
        by_spread: mean squared error over coverage, the rows of the largest variance going first.
    """

    figures: dict[str, float]
    by_spread: RiskCoverage


def judge_classes(
    mean: npt.ArrayLike,
    entropy: npt.ArrayLike,
    mutual_information: npt.ArrayLike,
    labels: npt.ArrayLike,
    axis: int = -1,
) -> JudgedClasses:
    """Hold mean probabilities and their entropies against labels.

    Args:
        mean: probabilities, samples first, classes along ``axis``.
        entropy: of the mean, shaped as ``mean`` without ``axis``.
        mutual_information: of the same shape.
        labels: the right classes, integers, of the same shape.
        axis: the axis of classes.

    Raises:
        SpecError: shapes that differ, or scikit-learn is not installed.
    """
    p, y = labelled(mean, labels, axis)
    total, unknown = same_shape(entropy=entropy, mutual_information=mutual_information)
    if len(total) != len(y):
        raise SpecError(f"entropy has {len(total)} rows; labels have {len(y)}")
    samples = len(np.asarray(labels))
    odd = np.repeat(np.arange(samples) % 2 == 1, len(y) // samples)
    if samples < 2:
        odd[:] = True
    temperature = fit_temperature(p[~odd], y[~odd]) if (~odd).any() else 1.0
    scaled = with_temperature(p[odd], temperature)
    right = p.argmax(axis=1) == y
    figures = {
        "rows": float(len(y)),
        "right": float(right.mean()),
        "negative log-likelihood": float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()),
        "Brier score": _brier(p, y),
        "calibration error, 15 bins": calibration_error(p[odd], y[odd]),
        f"... at temperature {temperature:.2f}": calibration_error(scaled, y[odd]),
        "mean entropy where right": _mean(total[right]),
        "mean entropy where wrong": _mean(total[~right]),
        "finds errors: AUROC of entropy": _auroc(~right, total),
        "finds errors: AUROC of mutual information": _auroc(~right, unknown),
        "area under risk-coverage": float(risk_coverage(~right, total).risk.mean()),
    }
    return JudgedClasses(
        figures,
        right,
        total,
        unknown,
        reliability(p[odd], y[odd]),
        reliability(scaled, y[odd]),
        temperature,
        risk_coverage(~right, total),
        risk_coverage(~right, unknown),
    )


def judge_values(mean: npt.ArrayLike, variance: npt.ArrayLike, values: npt.ArrayLike) -> JudgedValues:
    """Hold means and variances of a regression against the true values, all of one shape.

    Raises:
        SpecError: shapes that differ, or a variance that is not positive.
    """
    m, v, y = same_shape(mean=mean, variance=variance, values=values)
    error = (m - y) ** 2
    figures = {
        "rows": float(len(y)),
        "root mean squared error": float(np.sqrt(error.mean())),
        "negative log-likelihood": gaussian_nll(m, v, y),
        "inside the 50 % interval": interval_coverage(m, v, y, 0.5),
        "inside the 90 % interval": interval_coverage(m, v, y, 0.9),
        "inside the 95 % interval": interval_coverage(m, v, y, 0.95),
    }
    return JudgedValues(figures, risk_coverage(error, v))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")


def _brier(p: Array, labels: Array) -> float:
    """Return the mean of the sum over classes of squared differences (Brier 1950)."""
    try:
        from sklearn.metrics import brier_score_loss
    except ImportError:
        raise SpecError("scikit-learn is not installed: pip install 'onnx_spatialdrop[uncertainty]'") from None
    hot = np.eye(p.shape[1])[labels]
    if p.shape[1] == 2:
        return 2 * float(brier_score_loss(labels, np.clip(p[:, 1], 0, 1)))
    return float(sum(brier_score_loss(hot[:, k], np.clip(p[:, k], 0, 1)) for k in range(p.shape[1])))


def _auroc(wrong: Array, uncertainty: Array) -> float:
    if wrong.all() or not wrong.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, uncertainty))
