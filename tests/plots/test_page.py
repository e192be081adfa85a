"""The page holds its pictures, runs nothing, and writes every text as text."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_spatialdrop.metrics.judged import judge_classes, judge_values
from onnx_spatialdrop.montecarlo.result import Statistics
from onnx_spatialdrop.plots.page import page
from onnx_spatialdrop.plots.result import pictures

pytest.importorskip("matplotlib")


def segmented(rows: int = 4) -> Statistics:
    rng = np.random.default_rng(0)
    p = rng.random((7, rows, 3, 8, 8))
    p /= p.sum(axis=2, keepdims=True)
    mean = p.mean(0)
    divergence = (p * np.log(p / mean)).sum(axis=(0, 2))
    sums = {"mean": mean, "squares": ((p - mean) ** 2).sum(0), "divergence": divergence}
    return Statistics("y", "classification", 1, np.full(rows, 7), sums)


def test_texts_are_escaped_and_nothing_is_fetched() -> None:
    made = page("<b>&", ["a < b"], {"<i>": "1"}, [("<h>", [(b"png", 'x\'s "y"')])])
    assert "&lt;b&gt;&amp;" in made
    assert "<i>" not in made
    assert "data:image/png;base64,cG5n" in made
    assert "src='http" not in made


def test_a_segmentation_gets_maps_and_curves_and_the_same_bytes_twice() -> None:
    result, labels = segmented(), np.random.default_rng(1).integers(0, 3, (4, 8, 8))
    judged = judge_classes(result.mean, result.entropy, result.mutual_information, labels, 1)
    images = {"image": np.random.default_rng(2).random((4, 1, 8, 8)).astype(np.float32)}
    one, two = (pictures(result, judged, images, labels) for _ in range(2))
    assert [heading for heading, _ in one] == ["Where it is unsure", "Held against the truth"]
    assert all(shown[0].startswith(b"\x89PNG") for _, section in one for shown in section)
    assert one == two


def test_without_labels_or_images_there_is_less_to_draw() -> None:
    assert pictures(segmented(), None, {"tokens": np.zeros((4, 8), np.int64)}, None) == []
    assert len(pictures(segmented(), None, {"image": np.ones((4, 8, 8, 3), np.uint8)}, None)) == 1


def test_a_regression_gets_its_curve() -> None:
    rng = np.random.default_rng(0)
    judged = judge_values(rng.random(50), rng.random(50) + 0.1, rng.random(50))
    result = Statistics("y", "regression", -1, np.full(50, 7), {"mean": rng.random((50, 1))})
    ((heading, shown),) = pictures(result, judged, {}, None)
    assert (heading, len(shown)) == ("Held against the truth", 1)
