"""How a dropout is named after the module that calls it, where torch tells less than that, or tells it in a riddle."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import export, exporters, layers
from export.torch_marks import TORCH_WARNINGS
from torch import nn

from onnx_spatialdrop.export.torch.programs import qualified
from onnx_spatialdrop.export.torch.script import layer_of

pytestmark = TORCH_WARNINGS


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", ""),
        ("drop", "drop"),
        ("blocks.0.drop", "blocks.0.drop"),
        ("getattr(L['fn'], '1')", "1"),
        ("L['fn'].encoder.drop", "encoder.drop"),
        ("getattr(L['fn'].blocks, '1').drop", "blocks.1.drop"),
        ("getattr(getattr(L['self'].blocks, '0'), '12')", "blocks.0.12"),
    ],
)
def test_expressions_of_torch_2_6_become_qualified_names(path: str, name: str) -> None:
    assert qualified(path) == name


class Output(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.dropout = nn.Linear(6, 6), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(x))


class Layer(nn.Module):
    """As BERT has it: `output` inside of `attention`, and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(OrderedDict(output=Output()))
        self.output = Output()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.attention(x).relu())


@exporters
def test_modules_whose_names_end_alike_keep_their_own(dynamo: bool) -> None:
    module = nn.Sequential(Layer(), Layer())
    names = [name for _, name in layers(export(module, torch.ones(3, 6), dynamo=dynamo, elementwise=True))]
    assert names == [
        "0.attention.output.dropout",
        "0.output.dropout",
        "1.attention.output.dropout",
        "1.output.dropout",
    ]


@pytest.mark.filterwarnings("ignore:no signature found for:UserWarning")
def test_so_do_modules_that_were_traced_before() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of torch.jit.trace
        traced = torch.jit.trace(nn.Sequential(Layer()).eval(), torch.ones(3, 6))
    names = [name for _, name in layers(export(traced, torch.ones(3, 6), dynamo=False, elementwise=True))]
    assert names == ["0.attention.output.dropout", "0.output.dropout"]


def test_the_nearest_module_of_a_scopes_name_is_meant() -> None:
    modules = ["", "layer", "layer.0", "layer.0.attention", "layer.0.attention.output", "layer.0.output"]
    path = "M::/Layer::layer.0/Out::output"
    assert layer_of(path, modules) == "layer.0.output"
    assert layer_of(path.replace("/Out", "/Att::attention/Out"), modules) == "layer.0.attention.output"
    assert layer_of(f"{path}/onnx_spatialdrop::layer.0.a/b::c", modules) == "layer.0.a/b::c"
