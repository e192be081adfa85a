"""exporting() inside exporting(): the inner one's arguments count, and afterwards the outer one's again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import Calls, exporters, operators
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt

pytestmark = [*TORCH_WARNINGS, pytest.mark.filterwarnings("ignore::onnx_spatialdrop.export.left_out.LeftOutWarning")]

X = torch.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4)
#: What is written with elementwise=False, with elementwise=True, and without any dropout.
USUAL, BOTH, NONE = ["Relu", "SpatialDropout"], ["Relu", "SpatialDropout", "SpatialDropout"], ["Relu"]


def module() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Dropout2d(0.3), nn.Dropout(0.2)).train()


def written(dynamo: bool) -> list[str]:
    """Call torch.onnx.export as it is here and now, and return what it wrote."""
    file = None if dynamo else io.BytesIO()
    program = torch.onnx.export(module(), (X,), file, dynamo=dynamo)
    proto = program.model_proto if file is None else onnx.load_model_from_string(file.getvalue())
    return operators(ir.from_proto(proto))


@exporters
def test_each_context_exports_with_its_own_arguments(dynamo: bool) -> None:
    with sdt.exporting():
        assert written(dynamo) == USUAL
        with sdt.exporting(elementwise=True):
            assert written(dynamo) == BOTH
            with sdt.exporting(dropout="inference"):
                assert written(dynamo) == NONE
            assert written(dynamo) == BOTH
        assert written(dynamo) == USUAL


@exporters
def test_a_call_of_export_in_a_context_has_arguments_of_its_own(dynamo: bool) -> None:
    with sdt.exporting(elementwise=True, seed=4, training_mode=True):
        model = sdt.export(module(), (X,), dynamo=dynamo)
        assert written(dynamo) == BOTH
    assert operators(model) == USUAL
    alone = sdt.export(module(), (X,), dynamo=dynamo)
    assert [each.seed for each in sd.find(model)] == [each.seed for each in sd.find(alone)]
    assert [each.training_mode for each in sd.find(model)] == ["switch training_mode (false)"]


def test_a_residual_in_an_inner_context_for_inference_is_traced_as_torch_does_alone(tmp_path: Path) -> None:
    residual = Calls(lambda self, x: self.drop(x) + x, drop=nn.Dropout2d(0.5))
    files = [tmp_path / "op.onnx", tmp_path / "inference.onnx"]
    for file in files:
        with sdt.exporting(dropout=file.stem):
            sdt.export(residual, (X,), file, dropout="inference")
    assert files[0].read_bytes() == files[1].read_bytes()


@exporters
def test_after_errors_inside_the_outer_context_goes_on_and_torch_is_as_before(dynamo: bool) -> None:
    def patched() -> list[Any]:
        return [torch.onnx.export, torch.export.ExportedProgram.run_decompositions, torch.feature_dropout]

    before = patched()
    with sdt.exporting(elementwise=True):
        with pytest.raises(sd.SpatialDropError, match="dropout is 'on'"), sdt.exporting(dropout="on"):
            pass
        with pytest.raises(ZeroDivisionError), sdt.exporting():
            raise ZeroDivisionError
        with pytest.raises(sd.SpatialDropError, match="feature alpha dropout"):
            sdt.export(nn.Sequential(nn.SELU(), nn.FeatureAlphaDropout(0.2)), (X,), dynamo=dynamo)
        assert written(dynamo) == BOTH
    assert patched() == before
    assert "feature_dropout" not in vars(torch._VF)
