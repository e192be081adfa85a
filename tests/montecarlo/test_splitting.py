"""split: what runs once, what runs for each draw, and what that is worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from montecarlo.running import open_session, whole_runs
from montecarlo.test_onefile import digits, small

import onnx_spatialdrop as sd

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("name", ["digits_torch", "digits_keras", "digits_if", "digits_torch_train_export"])
def test_prefix_and_suffix_are_models_and_give_a_whole_runs_numbers(name: str) -> None:
    model, feeds = digits(name)
    feeds |= {"monte_carlo": np.array(True)} if name == "digits_if" else {}
    cut = sd.split(model)
    for half in (cut.prefix, cut.suffix):
        onnx.checker.check_model(half, full_check=True)
    prefix, suffix = open_session(cut.prefix), open_session(cut.suffix)
    crossing = dict(
        zip(
            [v.name for v in prefix.get_outputs()],
            prefix.run(None, {k: feeds[k] for k in (v.name for v in prefix.get_inputs())}),
            strict=True,
        )
    )
    step = np.arange(5) * 1000
    given = {k: v for k, v in (feeds | crossing).items() if k in {value.name for value in suffix.get_inputs()}}
    got = suffix.run(None, {**given, "step": step})[0]
    if name != "digits_torch_train_export":  # which has no step of its own
        np.testing.assert_allclose(got, whole_runs(model, feeds, step, 1)[0], atol=1e-4)
    assert cut.report.proven


def test_the_report_says_what_a_cut_is_worth() -> None:
    model = small("float[N,4] y", "y = MatMul (d, u)")
    late = sd.split(model).report
    assert (late.prefix_nodes, late.suffix_nodes, late.boundary) == (0, 2, ("x",))
    assert late.speed_up(31) == 1
    report = sd.split(MODELS / "digits_torch.onnx", layers="last").report
    assert report.live == ("relu_2/SpatialDropout",)
    assert 0.9 < report.share < 1
    assert 10 < report.speed_up(31) < 31
    assert json.loads(json.dumps(report.as_dict()))["proven"] is True
    assert "draws run at once: proven" in str(report)


def test_a_path_gives_onnx_irs_models() -> None:
    assert isinstance(sd.split(MODELS / "digits_torch.onnx").suffix, ir.Model)
