"""A torch that lacks what the export takes hold of: one error that names it, and nothing changed."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import Calls, operators
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt

pytestmark = TORCH_WARNINGS

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.4), nn.ReLU())
X = torch.ones(1, 3, 5, 5)


@pytest.mark.parametrize(
    ("owner", "name", "where"),
    [
        (torch.export.ExportedProgram, "run_decompositions", "torch.export.ExportedProgram.run_decompositions"),
        (torch.library, "register_fake", "torch.library.register_fake"),
        (torch.compiler, "is_compiling", "torch.compiler.is_compiling"),
        (torch, "feature_dropout", "torch.feature_dropout"),
    ],
)
@pytest.mark.parametrize("call", ["export", "table"])
def test_a_place_that_is_gone_is_named(
    owner: object, name: str, where: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.onnx.export
    monkeypatch.delattr(owner, name)
    with pytest.raises(sd.SpatialDropError) as error:
        sdt.translation_table() if call == "table" else sdt.export(NETWORK, (X,))
    assert str(error.value) == (
        f"torch {torch.__version__} has no {where}, which spatial dropout needs to get through an export; "
        "use torch 2.6 or newer, best 2.13.0, with which this is tested"
    )
    assert torch.onnx.export is before


def test_an_export_without_translation_tables_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.utils.export  # the TorchScript exporter's own, which has no tables
    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(sd.SpatialDropError, match=r"has no torch\.onnx\.export\(custom_translation_table"):
        sdt.export(NETWORK, (X,))
    assert torch.onnx.export is export


def test_without_the_torchscript_exporter_the_newer_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.onnx, "register_custom_op_symbolic")
    model = sdt.export(NETWORK, (X,))
    assert operators(model) == ["Conv", "SpatialDropout", "Relu"]


def test_a_torch_without_translations_of_its_own_is_told_which_onnxscript_to_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnxscript = pytest.importorskip("onnxscript", reason='pip install "onnx_spatialdrop[torch]"')
    monkeypatch.setattr(onnxscript.ir.Model, "__module__", "onnxscript.ir")  # as onnxscript 0.2 has it
    module = Calls(lambda self, x: torch.special.bessel_j0(self.drop(x)), drop=nn.Dropout2d(0.5))
    with pytest.raises(torch.onnx.OnnxExporterError) as own:
        sdt.export(module, (X,))
    assert "bessel_j0" in str(own.value)
    monkeypatch.setattr(onnxscript.ir.Model, "__module__", "onnx_ir._core")  # as onnxscript 0.3 and newer have it
    monkeypatch.setitem(sys.modules, "torch.onnx._internal.exporter._torchlib.ops.core", None)  # as torch 2.6 has none
    with pytest.raises(sd.SpatialDropError) as error:
        sdt.export(module, (X,))
    assert str(error.value).startswith(
        f"torch {torch.__version__} could not export the module with the translations of onnxscript "
        f'{onnxscript.__version__}; use onnxscript 0.2 (pip install "onnxscript<0.3") or torch 2.7 and newer; '
        "torch says: "
    )
    assert isinstance(error.value.__cause__, torch.onnx.OnnxExporterError)
