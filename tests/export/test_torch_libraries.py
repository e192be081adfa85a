"""Hugging Face Optimum and Ultralytics export by themselves, inside exporting(): models with Dropout2d."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')
INSTALL = "Optimum is not installed: pip install optimum-onnx==0.1.0 transformers==4.57.6"

from export.torch_forced import run_forced
from export.torch_marks import TORCH_WARNINGS

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt

# What the two warn of about themselves.
pytestmark = [*TORCH_WARNINGS, pytest.mark.filterwarnings("ignore")]


LAYER = "segmentation_head.aspp.dropout"
IMAGES = torch.linspace(-1, 1, 3 * 3 * 64 * 64).sin().reshape(3, 3, 64, 64)


def reset(model: Any) -> Any:
    """Give a model weights with which its outputs differ; as these libraries make them, they hardly do."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.uniform_(0.1, 1)
            else:
                torch.nn.init.kaiming_normal_(parameter)
    return model.eval()


def mobilevit() -> Any:
    transformers = pytest.importorskip("transformers", reason=INSTALL)
    sizes = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48]}
    config = transformers.MobileViTConfig(
        image_size=64, num_attention_heads=2, aspp_out_channels=16, classifier_dropout_prob=0.25, num_labels=5, **sizes
    )
    return reset(transformers.MobileViTForSemanticSegmentation(config))


def through_optimum(model: Any, folder: Path, **arguments: Any) -> Path:
    """Export as Optimum's command line does, its own comparison with torch included; return the file."""
    optimum = pytest.importorskip("optimum.exporters.onnx", reason=INSTALL)
    with sdt.exporting(**arguments):
        optimum.onnx_export_from_model(model, folder, task="image-segmentation", do_validation=True)
    assert sorted(each.name for each in folder.iterdir()) == ["config.json", "model.onnx"]
    return folder / "model.onnx"


def test_with_the_body_optimum_checks_the_file_and_it_has_torchs_masks(tmp_path: Path) -> None:
    model = mobilevit()
    file = through_optimum(model, tmp_path, body=True)
    (found,) = sd.find(file)
    assert found.name == LAYER
    assert (found.axes, found.training_mode) == ((2, 3), "switch training_mode (false)")
    session, feeds = sd.session(file), {"pixel_values": IMAGES.numpy()}
    with torch.no_grad():
        inference = model(IMAGES).logits.numpy()
    np.testing.assert_allclose(session.run(None, feeds)[0], inference, rtol=1e-4, atol=1e-5 * np.abs(inference).max())
    for step in (0, 5):
        forced, masks = run_forced(model, sd.load(file), step, IMAGES)
        got = session.run(None, feeds | {"training_mode": np.array(True), "step": np.array([step])})[0]
        assert masks == 1
        expected = forced.logits.numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        assert np.abs(got - inference).max() > 0.01 * np.abs(inference).max()


@pytest.mark.parametrize(
    ("dropout", "inputs"), [("inference", ["pixel_values"]), ("training", ["pixel_values", "step"])]
)
def test_inference_and_training_files_are_standard_operators(dropout: Any, inputs: list[str], tmp_path: Path) -> None:
    target = "onnxruntime" if dropout == "training" else None
    proto = onnx.load(through_optimum(mobilevit(), tmp_path, dropout=dropout, target=target, step=0))
    assert {node.domain for node in proto.graph.node} == {""}
    assert [value.name for value in proto.graph.input] == inputs


def test_without_the_body_optimums_own_session_refuses_the_node(tmp_path: Path) -> None:
    # Why exporting() has body=True: the file is right, but a session with nothing registered reads it at once.
    with pytest.raises(Exception, match="onnx_spatialdrop:SpatialDropout.* is not a registered function/op"):
        through_optimum(mobilevit(), tmp_path)


def test_ultralytics_writes_the_nodes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes into the working folder
    for name, value in (("YOLO_OFFLINE", "True"), ("YOLO_AUTOINSTALL", "False"), ("YOLO_CONFIG_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    try:
        from ultralytics import YOLO
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        pytest.skip(f"Ultralytics cannot be imported ({error}): pip install ultralytics")
    yolo = YOLO("yolov8n-cls.yaml")
    reset(yolo.model).model[3].act = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Dropout2d(0.3))
    with sdt.exporting(body=True):
        file = yolo.export(format="onnx", imgsz=64, simplify=False)
    (found,) = sd.find(file)
    assert (found.name, found.axes) == ("model.3.act.1", (2, 3))
    feeds = {"images": IMAGES[:1].numpy()}
    session = sd.session(file, "body")
    on = [session.run(None, feeds | {"training_mode": np.array(True), "step": np.array([n])})[0] for n in (1, 1, 2)]
    np.testing.assert_array_equal(on[0], on[1])
    assert len({each.tobytes() for each in (on[0], on[2], session.run(None, feeds)[0])}) == 3
