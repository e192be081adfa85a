"""What an export says of the dropout that it leaves out."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import Calls, exporters, layers
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop.export.torch as sdt
from onnx_spatialdrop.export.left_out import LeftOut, LeftOutWarning
from onnx_spatialdrop.export.torch.survey import survey

pytestmark = [
    *TORCH_WARNINGS,
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The tensor attributes? self:UserWarning"),
    pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size other than 1:UserWarning"),
]
ASK = "elementwise=True keeps it"


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1), nn.LSTM(6, 6, 2, dropout=0.2), Calls(lambda _, x: x[0]))


@exporters
def test_the_warning_names_layers_and_what_keeps_them(dynamo: bool) -> None:
    with pytest.warns(LeftOutWarning) as seen:
        sdt.export(net(), (torch.ones(4, 6),), dynamo=dynamo)
    (warning,) = [each.message for each in seen if isinstance(each.message, LeftOutWarning)]
    assert str(warning) == f"not in the exported model: element-wise dropout in '1', '2' ({ASK})"
    what = "element-wise dropout"
    assert warning.left_out == (LeftOut("1", what, ASK, 0.1), LeftOut("2", what, ASK, 0.2))


@exporters
@pytest.mark.parametrize("arguments", [{"elementwise": False}, {"elementwise": True}, {"dropout": "inference"}])
def test_nothing_is_said_where_the_caller_has_decided(arguments: dict[str, Any], dynamo: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOutWarning)
        sdt.export(net(), (torch.ones(4, 6),), dynamo=dynamo, **arguments)


def test_the_context_lists_it_too() -> None:
    with pytest.warns(LeftOutWarning), sdt.exporting() as left_out:
        torch.onnx.export(net(), (torch.ones(4, 6),), dynamo=True)
    assert [each.layer for each in left_out] == ["1", "2"]


def test_many_layers_are_counted() -> None:
    module = nn.Sequential(*(nn.Dropout(0.1) for _ in range(9)), nn.Dropout1d(0.5))
    with pytest.warns(LeftOutWarning, match=r" in '0', '1', '2', '3', '4', '5' and 3 more \("):
        model = sdt.export(module, (torch.ones(2, 3, 4),), dynamo=False)
    assert layers(model) == [("9", "9")]


def test_a_program_tells_what_it_holds() -> None:
    program = torch.export.export(net().eval(), (torch.ones(4, 6),))
    with pytest.warns(LeftOutWarning, match="dropout inside of attention or a recurrent layer in '2'"):
        sdt.export(program, elementwise=True)
    with pytest.warns(LeftOutWarning, match="element-wise dropout in '1'"):
        sdt.export(program)


def test_a_module_that_cannot_be_trained_so_is_looked_at_in_inference_mode_only() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("wants targets")
        return self.drop(x)

    module = Calls(forward, drop=nn.Dropout(0.1))
    with pytest.warns(LeftOutWarning, match=r"training mode only in the model itself \(RuntimeError: wants targets\)$"):
        model = sdt.export(module.eval(), (torch.ones(4, 6),), dynamo=False, elementwise=True)
    assert layers(model) == [("drop", "drop")]


def test_a_survey_changes_nothing() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.norm = 0, nn.BatchNorm1d(6)
            self.register_buffer("total", torch.zeros(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.total += x.sum(0)
            return self.norm(x)

    module, x = nn.Sequential(Counts(), nn.Dropout(0.1), nn.Linear(6, 3)).train(), torch.ones(4, 6)
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    assert survey(module, (x,), {}).calls
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module[0].calls == 0
    assert all(part.training for part in module.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, torch.ones(4, 6))


def test_numbers_that_are_drawn_and_not_used_are_no_noise() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:  # a LayerDrop of 0, as transformers has it
        return x * 2 if not self.training or torch.rand([]) >= 0.0 else x

    assert not survey(Calls(forward), (torch.ones(3),), {}).unknown
