"""Dropout in what torch exports apart: regions, branches, exported programs, scripted modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import Calls, export, image, layers
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt

pytestmark = TORCH_WARNINGS


def test_layers_in_regions_that_torch_exports_apart_are_found_and_named() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.first(x.sin())
        y = torch.utils.checkpoint.checkpoint(lambda z: self.second(z.cos()), x, use_reentrant=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.third(self.conv(y))
        return y.float() + x

    drops = {name: nn.Dropout2d(0.4) for name in ("first", "second", "third")}
    model = export(Calls(forward, conv=nn.Conv2d(6, 6, 1), **drops), image())
    assert [layer for _, layer in layers(model)] == ["first", "second", "third"]
    assert [each.dtype for each in sd.find(model)] == ["float32", "float32", "bfloat16"]


def test_dropout_in_the_branches_of_a_condition() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x[0, 0, 0, 0] > 0, lambda y: self.a(y.sin()) * 2, lambda y: self.b(y.cos()) + 1, (x,))

    module = Calls(forward, a=nn.Dropout2d(0.5), b=nn.Dropout2d(0.25))
    model = export(module, image())
    assert [each.ratio for each in sd.find(model)] == [0.5, 0.25]
    session = sd.session(model)
    for x in (image(), -image()):
        on = session.run(None, {"x": x.numpy(), "training_mode": np.array(True), "step": np.array([0])})[0]
        with torch.no_grad():
            np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], module.eval()(x), rtol=1e-6, atol=1e-6)
        assert np.abs(on - session.run(None, {"x": x.numpy()})[0]).max() > 0.1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_is_read_and_not_changed(training: bool, strict: bool) -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout2d(0.4), nn.ReLU(), nn.Dropout2d(0.4, inplace=True))
    program = torch.export.export(module.train(training), (image(),), strict=strict)
    before = str(program.graph)
    model = sdt.export(program)
    assert isinstance(model, ir.Model)
    assert [layer for _, layer in layers(model)] == ["1", "3"]
    assert str(program.graph) == before
    name = model.graph.inputs[0].name
    got = sd.session(model).run(None, {name: image().numpy()})[0]
    np.testing.assert_allclose(got, module.eval()(image()).detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_in_which_input_and_output_are_mixed_up_is_refused(strict: bool) -> None:
    module = Calls(lambda self, x: self.drop(x) + x, drop=nn.Dropout2d(0.4)).eval()
    program = torch.export.export(module, (image(),), strict=strict)
    with pytest.raises(sd.SpatialDropError) as error:
        sdt.export(program)
    assert str(error.value) == (
        "layer 'drop' of the exported program was in inference mode when torch.export.export ran, which then cannot "
        "tell its output from its input; give the module itself, or export the program inside exporting()"
    )
    with sdt.exporting():
        program = torch.export.export(module, (image(),), strict=strict)
        model = torch.onnx.export(program).model
    assert {value.name for value in model.graph[-1].inputs} == {"x", model.graph[0].outputs[0].name}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_module_goes_through_the_torchscript_exporter() -> None:
    module = torch.jit.script(nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout2d(0.4), nn.ReLU(), nn.Dropout2d(0.4)))
    model = export(module, image(), dynamo=False)
    assert [layer for _, layer in layers(model)] == ["1", "3"]
    got = sd.session(model).run(None, {"x": image().numpy()})[0]
    np.testing.assert_allclose(got, module.eval()(image()).detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("opset", [18, 20, 22, 23])
def test_opsets(opset: int) -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout2d(0.4), nn.ReLU(), nn.Dropout2d(0.4))
    model = export(module, image(), opset_version=opset)
    assert model.opset_imports == {"": opset, "onnx_spatialdrop": 1}
    got = sd.session(model).run(None, {"x": image().numpy()})[0]
    np.testing.assert_allclose(got, module.eval()(image()).detach(), rtol=1e-6, atol=1e-6)


def test_an_input_that_is_called_step_keeps_its_name() -> None:
    module = Calls(lambda self, x: self.b(self.a(x).relu()), a=nn.Dropout2d(0.4), b=nn.Dropout2d(0.4))
    model = sdt.export(module, (image(),), input_names=["step"])
    assert isinstance(model, ir.Model)
    assert [value.name for value in model.graph.inputs] == ["step", "training_mode", "spatial_dropout/step"]
