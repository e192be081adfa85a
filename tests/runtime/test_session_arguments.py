"""What session passes on to InferenceSession, and what it refuses because that would take no notice or be obscure."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from building import dropout_model
from installed import HAS_FOLDERS

import onnx_spatialdrop as sd

FOLDER_KEY = "session.model_external_initializers_file_folder_path"


@pytest.fixture
def external(tmp_path: Path) -> Path:
    model = dropout_model(wrap=True)
    weight = onnx.numpy_helper.from_array(np.arange(400, dtype=np.float32), "weight")
    model.graph.initializer.append(weight)
    model.graph.node.append(onnx.helper.make_node("Neg", ["weight"], ["minus"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("minus", 1, [400]))
    file = tmp_path / "model.onnx"
    onnx.save(model, file, save_as_external_data=True, location="model.onnx.data")
    return file


def test_it_runs_on_the_cpu_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    class Recorded(onnxruntime.InferenceSession):
        def __init__(self, *arguments: object, **options: object) -> None:
            given.append(options["providers"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    assert sd.session(dropout_model(), "body").get_providers() == ["CPUExecutionProvider"]
    chosen = [("CPUExecutionProvider", {"use_arena": "0"})]
    sd.session(dropout_model(), "body", providers=chosen)
    assert given == [["CPUExecutionProvider"], chosen]


@pytest.mark.parametrize("name", ["provider", "session_options", "providrs"])
def test_a_misspelt_argument_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"session\\(\\) has no argument '{name}'; InferenceSession's are providers, "):
        sd.session(dropout_model(), "body", **{name: None})


def test_inference_sessions_own_arguments_are_passed_on() -> None:
    session = sd.session(dropout_model(), "body", disabled_optimizers=["EliminateDropout"], enable_fallback=0)
    assert session.run(None, {"x": np.ones((1, 4, 2, 2), np.float32)})[0].shape == (1, 4, 2, 2)


def test_a_proto_whose_weights_are_elsewhere_is_refused_with_a_way_out(external: Path) -> None:
    proto = onnx.load(external, load_external_data=False)
    message = "the model's tensor 'weight' is stored in 'model.onnx.data', and the model does not say where"
    with pytest.raises(sd.ModelFileError, match=message):
        sd.session(proto, "body")


@pytest.mark.parametrize(
    "way",
    [
        "path",
        "load",
        pytest.param("options", marks=pytest.mark.skipif(not HAS_FOLDERS, reason="needs onnxruntime 1.21 or newer")),
        "folder",
    ],
)
def test_each_way_out_finds_the_weights(external: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto, options = onnx.load(external, load_external_data=False), None
    if way == "options":
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(FOLDER_KEY, os.fspath(external.parent))
    elif way == "folder":
        monkeypatch.chdir(external.parent)
    model = {"path": external, "load": sd.load(external)}.get(way, proto)
    session = sd.session(model, "body", sess_options=options)
    np.testing.assert_array_equal(
        session.run(["minus"], {"x": np.ones((1, 4, 2, 2), np.float32)})[0], -np.arange(400, dtype=np.float32)
    )
