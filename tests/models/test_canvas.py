"""The segmentation network: right on held-back digits, and less sure of the pixels that it gets wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

import onnx_spatialdrop as sd

MODELS = Path(__file__).parents[2] / "models"


def test_it_is_right_and_unsure_where_it_is_wrong() -> None:
    held = dict(np.load(MODELS / "canvas.npz"))
    images = held["images"][:8].astype(np.float32) / 255
    labels = held["labels"][:8]
    cut = sd.split(MODELS / "canvas.onnx")
    assert cut.report.proven
    assert len(cut.report.live) == 2
    result = sd.MCDropout(MODELS / "canvas.onnx", task="segmentation").predict(images, check=True)
    wrong = result.prediction != labels
    assert wrong.mean() < 0.15
    assert result.entropy[wrong].mean() > 4 * result.entropy[~wrong].mean()
    assert result.entropy.shape == labels.shape
    assert (result.mutual_information >= 0).all()


def test_equal_seeds_lay_out_equal_canvases() -> None:
    spec = importlib.util.spec_from_file_location("canvas", MODELS / "canvas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images = np.random.default_rng(0).random((5, 8, 8)).astype(np.float32)
    one = module.canvases(images, np.arange(5), 2, 3)
    two = module.canvases(images, np.arange(5), 2, 3)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert one[0].shape == (2, 1, 40, 40)
    assert set(np.unique(one[1])) <= set(range(11))
