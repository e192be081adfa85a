"""The verbs monte-carlo and uncertainty: files, figures, a page, and one line for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_spatialdrop.cli import main

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits_torch.onnx")


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    recorded = dict(np.load(MODELS / "digits_torch.npz"))
    noise = np.random.default_rng(0).normal(0, 0.35, (60, 1, 8, 8))
    np.savez(tmp_path / "x.npz", image=(recorded["images"][:60] + noise).clip(0, 1).astype(np.float32))
    np.save(tmp_path / "y.npy", recorded["labels"][:60])
    return str(tmp_path / "x.npz"), str(tmp_path / "y.npy")


def test_monte_carlo_writes_the_file_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mc.onnx"
    assert main(["monte-carlo", DIGITS, str(out), "--statistics", "mean,variation_ratio", "--layers", "last"]) == 0
    said = capsys.readouterr().err
    assert "mean, variation_ratio; 1 dropouts are on, draws run at once\n" in said  # the file has the definition
    assert "taken for logits" in said
    assert [value.name for value in onnx.load(out).graph.output] == ["mean", "variation_ratio"]
    assert main(["monte-carlo", DIGITS, str(out), "--target", "onnxruntime"]) == 0
    assert all(node.domain == "" for node in onnx.load(out).graph.node)
    assert "need a kernel" not in capsys.readouterr().err


def test_a_model_without_dropout_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = str(MODELS / "digits_torch_eval_export.onnx")
    assert main(["monte-carlo", clean, str(tmp_path / "mc.onnx")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "onnx-spatialdrop insert MODEL" in said
    assert not (tmp_path / "mc.onnx").exists()


def test_uncertainty_gives_figures_arrays_and_a_page(
    tmp_path: Path, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out, html = tmp_path / "r.npz", tmp_path / "page.html"
    arguments = ["uncertainty", DIGITS, "--inputs", data[0], "--labels", data[1], "--samples", "31", "--batch", "25"]
    assert main([*arguments, "--out", str(out), "--plot", str(html)]) == 0
    said = capsys.readouterr().out
    for name in ("draws a sample", "Brier score", "calibration error", "AUROC of mutual information"):
        assert name in said
    arrays = dict(np.load(out))
    assert arrays["mean"].shape == (60, 10)
    np.testing.assert_allclose(arrays["mean"].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(arrays["expected_entropy"] + arrays["mutual_information"], arrays["entropy"], atol=1e-9)
    page = html.read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "31 draws a sample" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_json_goes_on_where_it_was_stopped(
    tmp_path: Path, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["uncertainty", DIGITS, "--inputs", data[0], "--labels", data[1], "--samples", "7", "--json"]
    assert main([*arguments, "--resume", str(tmp_path / "run"), "--batch", "40"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(list((tmp_path / "run").glob("*.npz"))) == 2
    assert main([*arguments, "--resume", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert first["rows"] == 60


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--batch", "0"], "--batch is 0"),
        (["--samples", "0"], "samples is 0"),
        (["--layers", "nowhere"], "no live dropout 'nowhere'"),
        (["--kernel", "native", "--task", "regression", "--statistics", "entropy"], "no statistic 'entropy'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    data: tuple[str, str], more: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["uncertainty", DIGITS, "--inputs", data[0], *more]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said


def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "short.npy", np.zeros(3, np.int64))
    assert main(["uncertainty", DIGITS, "--inputs", data[0], "--labels", str(tmp_path / "short.npy")]) == 1
    assert "holds 3 labels; there are 60 samples" in capsys.readouterr().err
