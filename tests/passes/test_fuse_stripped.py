"""What expand wrote is known again when its tags are gone and optimisers have been at it, and can be removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import dropout_ir

import onnx_spatialdrop as sd
from onnx_spatialdrop.passes.fuse.policy import run as fuse

FORMS = ["philox", "philox-int32"]


def expanded(form: str, **arguments: object) -> onnx.ModelProto:
    model = sd.expand(ir.to_proto(dropout_ir(mask=False, wrap=True, **arguments)), form=form)  # type: ignore[arg-type]
    for index, node in enumerate(model.graph.node):
        node.ClearField("metadata_props")
        node.name = f"n{index}"
    return model


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return onnx.load(options.optimized_model_filepath)


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Cast"]


@pytest.mark.parametrize(("form", "optimise"), [("philox", False), ("philox", True), ("philox-int32", True)])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"axes": (1,), "shape": ("N", 7, 5)},
        {"ratio": 0.5, "seed": -12345678901, "scale": 3.0},
        {"dtype": "float16"},
        {"training_mode": True, "step": [-1]},
        {"training_mode": True, "step": [3]},
        {"shape": (2, 4, 5, 6)},
    ],
    ids=str,
)
def test_a_form_that_draws_the_bits_is_known_by_them(
    form: str, arguments: dict[str, object], optimise: bool, tmp_path: Path
) -> None:
    before = sd.find(ir.to_proto(dropout_ir(mask=False, wrap=True, **arguments)))[0]  # type: ignore[arg-type]
    given = expanded(form, **arguments)
    given = optimised(given, tmp_path) if optimise else given
    fused, report = fuse(given)
    (node,) = sd.find(fused)
    assert (node.axes, node.ratio, node.seed) == (before.axes, before.ratio, before.seed)
    assert node.scale == pytest.approx(before.scale, rel=1e-6)
    assert [record.reason for record in report.refused] == []
    onnx.checker.check_model(fused)
    assert ops(sd.to_inference(given)) == ["Abs", "Neg"]
    onnx.save(given, tmp_path / "given.onnx")
    sd.to_inference(tmp_path / "given.onnx", tmp_path / "clean.onnx")
    assert ops(onnx.load(tmp_path / "clean.onnx")) == ["Abs", "Neg"]


@pytest.mark.parametrize("form", FORMS)
def test_the_bits_stay(form: str) -> None:
    given = expanded(form)
    fused = sd.fuse(given)
    x = np.random.default_rng(0).standard_normal((3, 4, 2, 2)).astype(np.float32)
    for step in (0, 7):
        feeds = {"x": x, "training_mode": np.array(True), "step": np.array([step])}
        one, two = (
            onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
            for model in (given, sd.attach(fused))
        )
        np.testing.assert_array_equal(one, two)


def test_other_numbers_than_the_definition_are_not_believed() -> None:
    given = expanded("philox")
    draw = [node.attribute[0].g for node in given.graph.node if node.op_type == "If"][-1]
    compared = [node for node in draw.node if node.op_type == "Less"][-1]
    compared.input[:] = list(reversed(compared.input))
    fused, report = fuse(given)
    assert sd.find(fused) == []
    assert "its draw could not be verified" in report.refused[0].reason
    assert "fuse before other tools" in report.refused[0].notes[0]


@pytest.mark.parametrize("form", ["uniform", "dropout", *FORMS])
def test_forms_whose_switch_an_optimiser_has_frozen_are_removed(form: str) -> None:
    given = expanded(form)
    keep = [value for value in given.graph.input if value.name == "x"]
    del given.graph.input[:]
    given.graph.input.extend(keep)  # what onnxslim and onnxsim make of inputs with a default
    fused, report = fuse(given)
    assert sd.find(fused) == []
    assert any("off" in record.reason for record in report.refused)
    assert ops(sd.to_inference(given)) == ["Abs", "Neg"]
