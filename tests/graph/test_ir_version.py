"""Old IR versions are raised to what is put into a model, and only then; what was a constant stays one."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.errors import ModelFileWarning

TEXT = (
    '<ir_version: 3, opset_import: ["": 11]> g (float[2,4,3,3] x, float[1] w) => (float[2,4,3,3] y)'
    " <float[1] w = {2}> { h = Relu(x) y = Mul(h, w) }"
)


def test_a_switch_can_be_fed_and_weights_cannot() -> None:
    with pytest.warns(ModelFileWarning, match="IR version 3 has no inputs .*: the model has version 4 now"):
        model = sd.insert(onnx.parser.parse_model(TEXT), after=["h"], rate=0.5)
    assert model.ir_version == 4
    assert [value.name for value in model.graph.input] == ["x", "training_mode", "step"]
    session, x = sd.session(model), np.ones((2, 4, 3, 3), np.float32)
    assert [value.name for value in session.get_overridable_initializers()] == ["training_mode", "step"]
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)
    assert (session.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([1])})[0] == 0).any()


def test_without_switches_the_version_stays() -> None:
    model = onnx.parser.parse_model(TEXT.replace("Mul(h, w)", "Mul(d, w)").replace("y = ", "d = Dropout(h) y = "))
    got = sd.to_inference(model)
    assert got.ir_version == 3
    assert [value.name for value in got.graph.input] == ["x", "w"]
    onnx.checker.check_model(got)


def test_functions_need_version_8() -> None:
    with pytest.warns(ModelFileWarning):
        model = sd.insert(onnx.parser.parse_model(TEXT.replace('"": 11', '"": 18')), after=["h"], rate=0.5)
    got = sd.attach(model)
    assert got.ir_version == 8
    onnxruntime.InferenceSession(got.SerializeToString(), providers=["CPUExecutionProvider"])


def test_the_command_line_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), file)
    assert main(["insert", str(file), "--after", "h", "--rate", "0.5"]) == 0
    assert "IR version 3 has no inputs that somebody may feed or not" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["philox", "uniform", "mask-inputs"])
def test_constants_of_an_expanded_model_are_listed_as_inputs_before_version_4(form: str) -> None:
    dropped = "d, m = onnx_spatialdrop.SpatialDropout <axes: ints = [2, 3], ratio = 0.5, seed = 1> (h, on, step)"
    text = TEXT.replace('"": 11', '"": 18, "onnx_spatialdrop": 1').replace("Mul(h, w)", "Mul(d, w)")
    made = f"on = Constant <value_int = 1> () step = Constant <value_ints = [3]> () {dropped} y = "
    given = onnx.parser.parse_model(text.replace("y = ", made.replace("value_int = 1", "value = bool {1}")))
    got = sd.expand(given, form=form)
    assert got.ir_version == 3
    onnx.checker.check_model(got)
