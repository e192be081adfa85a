"""Does uncertainty find errors? Risk over coverage: how wrong the answers are that are left when the least sure go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.metrics.checks import Array, same_shape

__all__ = ["RiskCoverage", "aurc", "risk_coverage"]


@dataclass(frozen=True)
class RiskCoverage:
    """Risk over coverage.

    Attributes:
        coverage: the share of rows that are answered, float64 [rows]: 1 / rows, 2 / rows, ..., 1.
        risk: the mean error of those, float64 [rows]; the surest rows come first.
    """

    coverage: Array
    risk: Array


def risk_coverage(errors: npt.ArrayLike, uncertainty: npt.ArrayLike) -> RiskCoverage:
    """Return risk over coverage (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).

    Args:
        errors: how wrong each row is; 0 and 1 for classes.
        uncertainty: of the same shape; larger is less sure. Rows that are equally sure come in their own order.

    Raises:
        SpecError: shapes that differ, or no rows.
    """
    wrong, unsure = same_shape(errors=errors, uncertainty=uncertainty)
    order = np.argsort(unsure, kind="stable")
    number = np.arange(1, len(order) + 1)
    return RiskCoverage(number / len(order), np.cumsum(wrong[order]) / number)


def aurc(errors: npt.ArrayLike, uncertainty: npt.ArrayLike) -> float:
    """Return the mean risk over all coverages (Geifman, Uziel and El-Yaniv 2019): less is better."""
    return float(risk_coverage(errors, uncertainty).risk.mean())
