"""What check says of one runtime or optimiser. That it does go wrong there is measured in tests/matrix."""

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest
from building import dropout_model
from zoo import path

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.passes.check.targets import OPTIMIZERS
from onnx_spatialdrop.passes.expand import TARGETS

FREEZING = {"onnxruntime-node", "onnxruntime-web", "openvino", "tract", "onnx2pytorch", "onnxslim", "onnxsim"}
FREEZING |= {"triton"}


def rules(model: onnx.ModelProto, target: str) -> list[str]:
    known = {(finding.rule, finding.nodes) for finding in sd.check(model)}
    return [each.rule for each in sd.check(model, target=target) if (each.rule, each.nodes) not in known]


@pytest.mark.parametrize("target", [*TARGETS, *OPTIMIZERS])
def test_switches_with_a_default(target: str) -> None:
    model = sd.expand(dropout_model(), form="uniform")
    assert ("frozen-switch" in rules(model, target)) == (target in FREEZING)
    assert "frozen-switch" not in rules(sd.expand(dropout_model(), form="uniform", defaults=False), target)


OPSETS = {"onnx2torch": 17, "onnx": 28}
RUN_THERE = [(target, form) for target, forms in TARGETS.items() for form in forms if target != "reference"]


@pytest.mark.parametrize(("target", "form"), RUN_THERE)
def test_what_expand_writes_for_a_target_is_fine_there(target: str, form: str) -> None:
    model = dropout_model(shape=(2 if target == "onnx" else "N", 4, 3, 2), opset=OPSETS.get(target, 18))
    assert rules(sd.expand(model, form=form, target=target), target) == []


@pytest.mark.parametrize(
    ("target", "found"), [("openvino", True), ("tract", True), ("onnxslim", True), ("onnxsim", False)]
)
def test_the_function_body(target: str, found: bool) -> None:
    attached = sd.attach(dropout_model(), defaults=False)
    assert rules(attached, target) == (["unknown-function"] if found else [])


def test_functions_of_the_model_itself() -> None:
    model = sd.expand(onnx.load(path("digits_function")), form="uniform", defaults=False)
    (finding,) = [each for each in sd.check(model, target="tract") if each.rule == "unknown-function"]
    assert str(finding) == (
        "unknown-function: stage1, stage3: tract knows no functions of the model's own, such as digits::Stage. "
        "Fix: expand(model, target='tract')."
    )
    assert rules(model, "onnxslim") == []


@pytest.mark.parametrize("form", ["dropout", "philox", "philox-int32"])
@pytest.mark.parametrize("target", ["openvino", "tract", "onnxslim"])
def test_dropout_in_training_mode(form: str, target: str) -> None:
    """The two philox forms draw from it for a negative step, inside an If, where onnxslim does not look."""
    rule = "training-dropout" in rules(sd.expand(dropout_model(), form=form, defaults=False), target)
    assert rule == (target != "onnxslim" or form == "dropout")


def test_onnxscript_deletes_a_dropout_whose_switch_is_false_by_default() -> None:
    assert rules(sd.expand(dropout_model(), form="dropout"), "onnxscript") == ["training-dropout"]
    assert rules(sd.expand(dropout_model(), form="dropout", defaults=False), "onnxscript") == []
    assert rules(sd.expand(dropout_model(training_mode=True), form="dropout"), "onnxscript") == []


def test_words_of_64_bits_in_openvino_and_computed_shapes_in_tract() -> None:
    """With a constant step there is no Dropout, and OpenVINO runs the form without a word, with wrong masks."""
    fixed = dropout_model(training_mode=True, step=[3])
    assert rules(sd.expand(fixed, form="philox"), "openvino") == ["wide-integers"]
    assert rules(sd.expand(fixed, form="philox-int32"), "openvino") == []
    assert rules(sd.expand(fixed, form="philox-int32"), "tract") == []
    assert "computed-shape" in rules(sd.expand(dropout_model(training_mode=True), form="philox-int32"), "tract")


@pytest.mark.parametrize(("form", "found"), [("uniform", True), ("dropout", True), ("philox", False)])
def test_draws_that_the_reference_evaluator_repeats(form: str, found: bool) -> None:
    assert rules(sd.expand(dropout_model(), form=form), "reference") == (["repeated-draw"] if found else [])


def test_a_gemm_in_float16_and_a_saved_if() -> None:
    assert rules(onnx.load(path("digits_float16")), "tract") == ["lost-function", "float16-gemm", "frozen-switch"]
    assert rules(onnx.load(path("digits_if")), "onnxruntime-offline") == ["if-offline"]
    assert rules(onnx.load(path("digits_torch")), "onnxruntime-offline") == []


def test_nodes_that_run_on_the_cpu_alone() -> None:
    assert rules(dropout_model(), "onnxruntime-providers") == ["cpu-node", "frozen-switch"]
    assert rules(sd.expand(dropout_model(), form="mask-inputs", defaults=False), "onnxruntime-providers") == []


def test_an_unknown_target() -> None:
    with pytest.raises(FormError, match="target is 'nothing'; known: onnxruntime, .*, training, onnxslim, onnxsim"):
        sd.check(dropout_model(), target="nothing")
    with pytest.raises(FormError, match="^target is 'tensorrt', which .*needs neither$"):
        sd.check(dropout_model(), target="tensorrt")


def test_the_command_line_asks_for_a_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.onnx"
    sd.save(sd.expand(dropout_model(), form="uniform"), file)
    assert main(["check", str(file), "--target", "openvino", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [each["nodes"] for each in found if each["rule"] == "frozen-switch"] == [["training_mode"]]
    assert main(["check", str(file), "--target", "nothing"]) == 1
