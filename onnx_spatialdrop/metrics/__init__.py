"""How good uncertainty is: calibration, selection and intervals, on arrays. It knows no model and no runtime.

What scikit-learn has (Brier score, log loss, ROC) is not here: ``sklearn.metrics.brier_score_loss``, ``log_loss``,
``roc_auc_score``.
"""

from onnx_spatialdrop.metrics.calibration import (
    Reliability,
    calibration_error,
    fit_temperature,
    reliability,
    with_temperature,
)
from onnx_spatialdrop.metrics.information import entropy, expected_entropy, mutual_information, variation_ratio
from onnx_spatialdrop.metrics.regression import gaussian_nll, interval_coverage
from onnx_spatialdrop.metrics.selection import RiskCoverage, aurc, risk_coverage

__all__ = [
    "Reliability",
    "RiskCoverage",
    "aurc",
    "calibration_error",
    "entropy",
    "expected_entropy",
    "fit_temperature",
    "gaussian_nll",
    "interval_coverage",
    "mutual_information",
    "reliability",
    "risk_coverage",
    "variation_ratio",
    "with_temperature",
]
