"""Other people's calls of torch.onnx.export, inside exporting()."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import operators
from export.torch_marks import TORCH_WARNINGS
from torch import nn
from torch.onnx import export as taken_before

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt

pytestmark = TORCH_WARNINGS
IN_TRAINING_MODE = pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.4)).train()


X = torch.linspace(-1, 1, 2 * 3 * 36).reshape(2, 3, 6, 6)


def library(model: nn.Module, file: Path, **arguments: Any) -> None:
    """Export as libraries do (Ultralytics, Hugging Face Optimum): a dry run, an import of their own, no table."""
    from torch.onnx import export as onnx_export

    with torch.no_grad():
        model(X)
    onnx_export(model, (X,), file, input_names=["images"], output_names=["out"], **arguments)


def nodes(file: Any) -> list[str]:
    return operators(sd.load(file))


WRITTEN = ["Conv", "SpatialDropout", "BatchNormalization", "Relu", "SpatialDropout"]


def test_an_own_call_with_the_table(tmp_path: Path) -> None:
    file = tmp_path / "unet.onnx"
    with sdt.exporting():
        program = torch.onnx.export(module(), (X,), file, dynamo=True, custom_translation_table=sdt.translation_table())
    assert nodes(file) == WRITTEN
    assert operators(program.model) == WRITTEN
    program.save(tmp_path / "again.onnx")
    assert nodes(tmp_path / "again.onnx") == WRITTEN
    onnx.checker.check_model(onnx.load(file))


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_a_library_that_knows_nothing_of_us(dynamo: bool, tmp_path: Path) -> None:
    model, file = module(), tmp_path / "model.onnx"
    with sdt.exporting(seed=9):
        library(model, file, dynamo=dynamo)
    assert nodes(file) == WRITTEN
    assert all(each.training for each in model.modules())
    session = sd.session(file)
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert [value.name for value in session.get_overridable_initializers()] == ["training_mode", "step"]
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"images": X.numpy()})[0], model.eval()(X), rtol=1e-5, atol=1e-6)
    # Unless it is told otherwise, torch's newer exporter puts weights beside the file; they are named by their content.
    beside = sorted(each.name for each in tmp_path.iterdir() if each.name != "model.onnx")
    assert len(beside) == dynamo
    assert all(re.fullmatch(r"model\.onnx\.[0-9a-f]+\.data", name) for name in beside)


def test_a_translation_of_ones_own_is_used_beside_ours(tmp_path: Path) -> None:
    from onnxscript import opset20

    def relu(x: Any) -> Any:
        return opset20.Max(x, opset20.Sub(x, x))

    table = {torch.ops.aten.relu.default: relu, **sdt.translation_table()}
    with sdt.exporting():
        torch.onnx.export(module(), (X,), tmp_path / "m.onnx", dynamo=True, custom_translation_table=table)
    assert nodes(tmp_path / "m.onnx").count("SpatialDropout") == 2
    mine = {torch.ops.aten.relu.default: relu}
    alone = torch.onnx.export(nn.Sequential(nn.ReLU()).eval(), (X,), dynamo=True, custom_translation_table=mine)
    used = "Max" in operators(alone.model)
    assert used or torch.__version__.startswith("2.6.")  # which prefers its own to anybody's
    assert ("Max" in nodes(tmp_path / "m.onnx")) == used


def test_a_stream_can_be_written_too() -> None:
    stream = io.BytesIO()
    with sdt.exporting():
        torch.onnx.export(module(), (X,), stream, dynamo=False)
    written = onnx.load_model_from_string(stream.getvalue()).graph
    assert [node.op_type for node in written.node].count("SpatialDropout") == 2
    assert [value.name for value in written.input][-2:] == ["training_mode", "step"]


def test_a_program_exported_before_the_context() -> None:
    program = torch.export.export(module(), (X,))
    with sdt.exporting(dropout="inference"):
        written = torch.onnx.export(program, dynamo=True)
    assert "SpatialDropout" not in {node.op_type for node in written.model.graph}
    with sdt.exporting():
        written = torch.onnx.export(program, dynamo=True)
    assert [node.op_type for node in written.model.graph].count("SpatialDropout") == 2


def test_weights_beside_the_file_move_with_it(tmp_path: Path) -> None:
    large = nn.Sequential(nn.Linear(700, 700), nn.Dropout1d(0.5), nn.Linear(700, 3))
    x = torch.ones(2, 4, 700)
    with sdt.exporting():
        torch.onnx.export(large, (x,), tmp_path / "large.onnx", dynamo=True, external_data=True)
    (data,) = tmp_path.glob("large.onnx.*.data")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "large.onnx", data])
    got = sd.session(tmp_path / "large.onnx").run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(got, large.eval()(x).detach(), rtol=1e-5, atol=1e-6)


def test_a_function_taken_by_name_before_writes_no_file_that_loads(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    with sdt.exporting(), pytest.raises(torch.onnx.OnnxExporterError, match="onnx_spatialdrop.marker"):
        taken_before(module().eval(), (X,), file, dynamo=True)
    assert not file.exists()
    with sdt.exporting():
        taken_before(module().eval(), (X,), file, dynamo=True, custom_translation_table=sdt.translation_table())
    with pytest.raises(Exception, match="onnx_spatialdrop:Marker"):
        sd.session(file)


@IN_TRAINING_MODE
def test_the_table_alone_does_nothing(tmp_path: Path) -> None:
    # Why exporting() is needed: torch decomposes dropout before it looks into a table, and says nothing.
    file = tmp_path / "m.onnx"
    torch.onnx.export(module(), (X,), file, dynamo=True, custom_translation_table=sdt.translation_table())
    assert nodes(file).count("RandomUniformLike") == 2


@IN_TRAINING_MODE
def test_a_table_entry_for_feature_dropout_is_ignored_by_torch(tmp_path: Path) -> None:
    def never(x: Any, p: float, train: bool) -> Any:
        raise AssertionError((x, p, train))

    table = {torch.ops.aten.feature_dropout.default: never}
    torch.onnx.export(module(), (X,), tmp_path / "m.onnx", dynamo=True, custom_translation_table=table)
    assert nodes(tmp_path / "m.onnx").count("RandomUniformLike") == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_torch_is_as_before_afterwards_also_after_an_error(dynamo: bool, tmp_path: Path) -> None:
    def patched() -> list[Any]:
        return [torch.onnx.export, torch.export.ExportedProgram.run_decompositions, torch.feature_dropout]

    before = patched()
    broken = nn.Sequential(nn.Dropout2d(0.5), nn.Linear(99, 1)).train()
    broken[0].eval()
    (tmp_path / "m.onnx").write_bytes(b"old")
    with pytest.raises(Exception, match="Failed to export the model|mat1 and mat2"), sdt.exporting():
        torch.onnx.export(broken, (X,), tmp_path / "m.onnx", dynamo=dynamo)
    assert [each.training for each in broken.modules()] == [True, False, True]
    assert patched() == before
    assert "feature_dropout" not in vars(torch._VF)
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"old"
    mode = torch.onnx.TrainingMode.TRAINING
    plain = functools.partial(torch.onnx.export, dynamo=False, training=mode, do_constant_folding=False)
    with pytest.raises(Exception, match="export of operator aten::feature_dropout"):
        plain(module(), (X,), io.BytesIO())


def test_a_wrong_argument_is_refused_before_the_export_begins() -> None:
    with pytest.raises(sd.SpatialDropError, match="dropout is 'on'; allowed: 'op', 'inference', 'training'"):
        sdt.export(module(), (X,), dropout="on")
    with pytest.raises(sd.SpatialDropError, match="target is 'tensorflow'"):
        sdt.export(module(), (X,), dropout="training", target="tensorflow")
    with pytest.raises(sd.SpatialDropError, match="^verify=True runs the model before its dropout is finished; "):
        sdt.export(module(), (X,), verify=True)


def test_keyword_inputs_and_names(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout2d(0.5)

        def forward(self, x: torch.Tensor, *, shift: torch.Tensor) -> torch.Tensor:
            return self.drop(x) + shift

    file = tmp_path / "m.onnx"
    sdt.export(Two(), (X,), file, kwargs={"shift": torch.ones(1)}, input_names=["image", "shift"], output_names=["y"])
    inputs = {"image": X.numpy(), "shift": np.ones(1, np.float32)}
    np.testing.assert_array_equal(sd.session(file).run(["y"], inputs)[0], X.numpy() + 1)
