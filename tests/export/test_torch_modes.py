"""What is taken for dropout and what is left out, whatever mode a module is in; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

import torch.nn.functional as F
from export.torch_checks import Calls, check, export, exporters, image, layers, operators
from export.torch_forced import run_forced
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd

pytestmark = TORCH_WARNINGS


@exporters
def test_dropout_is_left_out_unless_it_is_asked_for(dynamo: bool) -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout(0.4), nn.Dropout2d(0.3), nn.ReLU(), nn.Dropout(0.2))
    check(module, image(), 1, dynamo=dynamo)
    model = check(module, image(), 3, dynamo=dynamo, elementwise=True)
    assert [each.axes for each in sd.find(model)] == [(), (2, 3), ()]
    assert [layer for _, layer in layers(model)] == ["1", "2", "4"]


@exporters
def test_a_functional_dropout_that_is_always_on_goes_too(dynamo: bool) -> None:
    module = Calls(lambda _, x: F.dropout(F.dropout2d(x.relu(), 0.5, True), 0.5, True) * 2)
    model = export(module, image(), dynamo=dynamo)
    assert operators(model) == ["Relu", "SpatialDropout", "Mul"]
    session, feeds = sd.session(model), {"x": image().numpy()}
    np.testing.assert_array_equal(session.run(None, feeds)[0], image().relu() * 2)
    forced, _ = run_forced(module, model, 1, image())
    feeds |= {"training_mode": np.array(True), "step": np.array([1])}
    np.testing.assert_array_equal(session.run(None, feeds)[0], forced)
    model = export(module, image(), dynamo=dynamo, dropout="inference")
    assert operators(model) == ["Relu", "Mul"]


@exporters
def test_what_reads_a_layers_input_goes_on_reading_the_input(dynamo: bool) -> None:
    # In inference mode torch's dropout returns its input, and tracers mix the two up.
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.relu()
        return 100 * self.a(y) + 10 * F.dropout2d(y, 0.5, self.training) + y + 7 * torch.feature_dropout(y, 0.5, False)

    check(Calls(forward, a=nn.Dropout2d(0.5)), image(), 3, 1e-5, dynamo=dynamo)
    residual = Calls(lambda self, x: self.a(x) + x, a=nn.Dropout(0.5))
    check(residual, image(), 1, dynamo=dynamo, elementwise=True)


@exporters
def test_torchs_generator_is_left_alone(dynamo: bool) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    export(nn.Sequential(nn.ReLU(), nn.Dropout2d(0.5)), torch.ones(1, 2, 3, 4), dynamo=dynamo)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")
@exporters
def test_keep_mode_leaves_the_modes_to_the_caller(dynamo: bool) -> None:
    class Sees(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if self.training else x * 2

    module = nn.Sequential(Sees(), nn.Dropout2d(0.5), nn.Dropout(0.5)).train()
    kept = export(module, image(), keep_mode=True, dynamo=dynamo)
    assert {"Add", "Dropout", "SpatialDropout"} <= {node.op_type for node in kept.graph}
    usual = {node.op_type for node in export(module, image(), dynamo=dynamo).graph}
    assert usual & {"Add", "Dropout", "Mul", "SpatialDropout"} == {"Mul", "SpatialDropout"}


@exporters
@pytest.mark.parametrize(
    ("layer", "elementwise", "what", "instead"),
    [
        (
            nn.FeatureAlphaDropout(0.2),
            False,
            "feature alpha dropout, which moves kept and dropped maps",
            "nn.Dropout2d",
        ),
        (
            nn.AlphaDropout(0.2),
            True,
            "alpha dropout, which moves kept and dropped values",
            "nn.Dropout, leave elementwise=False",
        ),
    ],
)
def test_alpha_dropout_is_refused_by_its_layers_name(
    layer: nn.Module, elementwise: bool, what: str, instead: str, dynamo: bool
) -> None:
    module = Calls(lambda self, x: self.inner(x) + 1, inner=nn.Sequential(nn.SELU(), layer))
    modes = [each.training for each in module.modules()]
    with pytest.raises(sd.SpatialDropError) as error:
        export(module, image(), dynamo=dynamo, elementwise=elementwise)
    assert str(error.value) == (
        f"layer 'inner.1' is {what} by constants that no SpatialDropout node has; "
        f"replace it by {instead}, or export with dropout='inference', which takes it out"
    )
    assert [each.training for each in module.modules()] == modes
    model = export(module, image(), dynamo=dynamo, dropout="inference")
    assert operators(model) == ["Selu", "Add"]


def test_alpha_dropout_is_left_out_where_element_wise_dropout_is() -> None:
    model = export(nn.Sequential(nn.SELU(), nn.AlphaDropout(0.2), nn.Dropout2d(0.2)), image())
    assert operators(model) == ["Selu", "SpatialDropout"]
