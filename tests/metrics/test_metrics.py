"""Metrics against formulas, cases worked out by hand, and other libraries where they are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onnx_spatialdrop import metrics
from onnx_spatialdrop.errors import SpecError

Array = npt.NDArray[Any]


def drawn(rows: int = 400, classes: int = 5, draws: int = 12, seed: int = 0) -> tuple[Array, Array]:
    """Return draws [T, rows, classes] of probabilities and labels that follow from their mean, too surely."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.standard_normal((rows, classes)) + rng.standard_normal((draws, rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    mean = p.mean(axis=0) ** 0.6
    labels = (mean / mean.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return p, (labels < rng.random((rows, 1))).sum(axis=1).clip(0, classes - 1)


def test_entropies_are_the_textbooks_and_add_up() -> None:
    p, _ = drawn()
    mean = p.mean(axis=0)
    np.testing.assert_allclose(metrics.entropy(np.full((3, 4), 0.25)), np.log(4))
    total = metrics.mutual_information(p) + metrics.expected_entropy(p)
    np.testing.assert_allclose(total, metrics.entropy(mean), atol=1e-12)
    assert (metrics.mutual_information(np.repeat(p[:1], 4, axis=0)) < 1e-12).all()
    np.testing.assert_allclose(metrics.entropy(np.moveaxis(mean, 1, 0), axis=0), metrics.entropy(mean))


def test_the_variation_ratio_of_votes_by_hand() -> None:
    draws = np.eye(3)[[[0, 1], [0, 1], [1, 1], [2, 1]]]
    np.testing.assert_allclose(metrics.variation_ratio(draws), [0.5, 0.0])


def test_calibration_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    # bins (0.5, 0.75]: 0.55 right, 0.7 right; (0.75, 1]: 0.9 right, 0.8 wrong
    np.testing.assert_allclose(metrics.calibration_error(p, labels, bins=4), 0.5 * (1 - 0.625) + 0.5 * (0.85 - 0.5))
    np.testing.assert_allclose(metrics.calibration_error(p, labels, bins=4, norm="max"), 0.375)
    curve = metrics.reliability(p, labels, bins=4)
    np.testing.assert_array_equal(curve.count, [0, 0, 2, 2])
    np.testing.assert_allclose(curve.accuracy[2:], [1.0, 0.5])


def test_the_temperature_is_the_best_one_and_mends_what_is_too_sure() -> None:
    p, labels = drawn(4000)
    mean = p.mean(axis=0)
    best = metrics.fit_temperature(mean, labels)
    assert 1.3 < best < 2.1  # labels were drawn at p ** 0.6

    def nll(temperature: float) -> float:
        return float(-np.log(metrics.with_temperature(mean, temperature)[np.arange(len(labels)), labels]).mean())

    assert nll(best) <= min(nll(best * 0.99), nll(best * 1.01))
    after = metrics.calibration_error(metrics.with_temperature(mean, best), labels)
    assert after < 0.5 * metrics.calibration_error(mean, labels)


def test_risk_over_coverage_by_hand() -> None:
    curve = metrics.risk_coverage([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.3])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 0.5])
    np.testing.assert_allclose(metrics.aurc([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.3]), (1 / 3 + 0.5) / 4)


def test_gaussian_predictions_by_hand_and_at_large() -> None:
    np.testing.assert_allclose(metrics.gaussian_nll([0.0], [1.0], [2.0]), 0.5 * np.log(2 * np.pi) + 2)
    rng = np.random.default_rng(1)
    mean, variance = rng.standard_normal(20000), rng.random(20000) + 0.1
    values = mean + np.sqrt(variance) * rng.standard_normal(20000)
    for level in (0.5, 0.9):
        inside = metrics.interval_coverage(mean, variance, values, level)
        assert abs(inside - level) < 4 * np.sqrt(level * (1 - level) / 20000)


def test_axes_of_classes_may_be_anywhere() -> None:
    p, labels = drawn(60)
    image = np.moveaxis(p.mean(axis=0).reshape(6, 10, 5), 2, 1)
    flat = metrics.calibration_error(p.mean(axis=0), labels)
    np.testing.assert_allclose(metrics.calibration_error(image, labels.reshape(6, 10), axis=1), flat)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: metrics.calibration_error(np.ones((2, 2)) / 2, [0, 2]), "integers from 0 to 1"),
        (lambda: metrics.calibration_error(np.ones((2, 2)) / 2, [0]), r"labels have shape \(1,\)"),
        (lambda: metrics.calibration_error(np.full((2, 2), 3.0), [0, 1]), r"lie in \[3, 3\]"),
        (lambda: metrics.calibration_error(np.ones((2, 2)) / 2, [0, 1], norm="l3"), "norm is 'l3'"),
        (lambda: metrics.entropy([np.nan, 1]), "NaN"),
        (lambda: metrics.mutual_information(np.ones((3, 2)), axis=0), "draws come first"),
        (lambda: metrics.aurc([0, 1], [0.5]), "errors has shape"),
        (lambda: metrics.gaussian_nll([0], [0], [0]), "must be positive"),
        (lambda: metrics.interval_coverage([0], [1], [0], 1.0), "between 0 and 1"),
        (lambda: metrics.with_temperature([[0.5, 0.5]], 0), "must be positive"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        call()


def test_torchmetrics_and_torch_uncertainty_give_the_same() -> None:
    torch = pytest.importorskip(
        "torch", reason="needs torch, torchmetrics and torch-uncertainty, which no extra installs"
    )
    classification = pytest.importorskip("torchmetrics.functional.classification")
    p, labels = drawn()
    mean = torch.tensor(p.mean(axis=0))
    for norm in ("l1", "l2", "max"):
        peer = classification.multiclass_calibration_error(mean, torch.tensor(labels), 5, n_bins=15, norm=norm)
        assert abs(float(peer) - metrics.calibration_error(p.mean(axis=0), labels, norm=norm)) < 1e-6
    peers = pytest.importorskip("torch_uncertainty.metrics")
    errors, unsure = (p.mean(axis=0).argmax(axis=1) != labels).astype(float), -p.mean(axis=0).max(axis=1)
    area = peers.AURC()
    area.update(mean, torch.tensor(labels))
    curve = metrics.risk_coverage(errors, unsure)
    # Theirs is the trapezoids under the same curve, stretched to a width of 1.
    trapezoids = float(((curve.risk[1:] + curve.risk[:-1]) / 2).mean())
    assert abs(float(area.compute()) - trapezoids) < 1e-6
    information = peers.MutualInformation()
    information.update(torch.tensor(np.moveaxis(p, 0, 1)))
    assert abs(float(information.compute()) - metrics.mutual_information(p).mean()) < 1e-6
