"""fix: a switch becomes a constant, a constant a switch, and every node follows."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from building import dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main

X = np.arange(2 * 4 * 3 * 3, dtype=np.float32).reshape(2, 4, 3, 3) + 1


def run(model: onnx.ModelProto, **feeds: object) -> np.ndarray:
    return sd.session(model, "python").run(None, {"x": X, **feeds})[0]


def inputs(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


@pytest.mark.parametrize("form", [None, "philox", "uniform"])
def test_a_fixed_model_reads_x_alone_and_drops_as_the_switches_said(form: str | None) -> None:
    model = dropout_model() if form is None else sd.expand(dropout_model(), form=form)
    fixed = sd.fix(model, training_mode=True, step=None if form == "uniform" else 7)
    onnx.checker.check_model(fixed, full_check=True)
    assert inputs(fixed) == ["x"]
    assert not np.array_equal(run(fixed), X)
    if form != "uniform":
        fed = {"training_mode": np.array(True), "step": np.array([7])}
        np.testing.assert_array_equal(run(fixed), run(model, **fed))
    np.testing.assert_array_equal(run(sd.fix(model, training_mode=False)), X)


def test_one_switch_alone_leaves_the_other() -> None:
    assert inputs(sd.fix(dropout_model(), step=3)) == ["x", "training_mode"]
    assert inputs(sd.fix(dropout_model(), training_mode=True)) == ["x", "step"]


def test_a_constant_may_be_fixed_anew() -> None:
    fixed = sd.fix(sd.fix(dropout_model(), training_mode=True, step=3), step=4)
    wanted = run(dropout_model(), training_mode=np.array(True), step=np.array([4]))
    np.testing.assert_array_equal(run(fixed), wanted)


def test_free_takes_fix_back() -> None:
    fixed = sd.fix(dropout_model(), training_mode=False, step=-1)
    freed = sd.fix(fixed, training_mode="free", step="free")
    assert sorted(inputs(freed)) == sorted(inputs(dropout_model()))
    fed = {"training_mode": np.array(True), "step": np.array([1, 5])}
    np.testing.assert_array_equal(run(freed, **fed), run(dropout_model(), **fed))


def test_free_gives_a_switch_to_nodes_that_read_a_constant_of_their_own() -> None:
    model = dropout_model(training_mode=True, step=[2])
    for value, name in zip(model.graph.initializer, ("always", "second"), strict=True):
        value.name = name
    model.graph.node[0].input[1:] = ["always", "second"]
    freed = sd.fix(model, training_mode="free")
    assert inputs(freed) == ["x", "training_mode"]
    np.testing.assert_array_equal(run(freed), run(model))  # the default is what it was
    np.testing.assert_array_equal(run(freed, training_mode=np.array(False)), X)


def test_steps_may_be_one_for_each_sample() -> None:
    fixed = sd.fix(dropout_model(), training_mode=True, step=[3, 9])
    wanted = run(dropout_model(), training_mode=np.array(True), step=np.array([3, 9]))
    np.testing.assert_array_equal(run(fixed), wanted)


def test_the_callers_model_is_not_changed() -> None:
    model = dropout_model()
    before = model.SerializeToString(deterministic=True)
    sd.fix(model, training_mode=True)
    assert model.SerializeToString(deterministic=True) == before


def test_what_cannot_be_fixed_is_refused() -> None:
    clean = sd.remove(dropout_model())
    with pytest.raises(sd.SpatialDropError, match="no dropout that a switch could control"):
        sd.fix(clean, training_mode=True)
    always = dropout_model(training_mode=True, step=[2])
    always.graph.initializer[0].name = always.graph.node[0].input[1] = "always"
    with pytest.raises(sd.SpatialDropError, match="the model has no switch training_mode; fix"):
        sd.fix(always, training_mode=False)
    with pytest.raises(sd.SpatialDropError, match="no dropout that a switch could control"):
        sd.fix(clean, step="free")
    with pytest.raises(sd.SpatialDropError, match="nothing to fix: give training_mode or step"):
        sd.fix(clean)
    with pytest.raises(sd.SpatialDropError, match=re.escape("step is [1, -1]; it must be one whole number")):
        sd.fix(clean, step=[1, -1])
    with pytest.raises(TypeError, match="training_mode must be True or False"):
        sd.fix(clean, training_mode=1)  # type: ignore[arg-type]


def test_the_verb_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(dropout_model(), file)
    assert main(["fix", str(file), "--training-mode", "on", "--step", "5"]) == 0
    assert capsys.readouterr().err == f"{tmp_path / 'model.fixed.onnx'}: training_mode is on, step is 5\n"
    assert inputs(onnx.load(tmp_path / "model.fixed.onnx")) == ["x"]
    with pytest.raises(SystemExit):
        main(["fix", str(file), str(tmp_path / "other.onnx")])
    assert "give --training-mode or --step" in capsys.readouterr().err
