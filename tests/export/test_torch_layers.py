"""Every way to write spatial dropout in torch, among other layers, through both exporters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

import torch.nn.functional as F  # noqa: E402
from export.torch_forced import run_forced  # noqa: E402
from export.torch_marks import TORCH_WARNINGS  # noqa: E402
from torch import nn  # noqa: E402

import onnx_spatialdrop as sd  # noqa: E402
import onnx_spatialdrop.export.torch as sdt  # noqa: E402
from onnx_spatialdrop.passes.layers import LAYER_KEY  # noqa: E402

pytestmark = [*TORCH_WARNINGS, pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input:UserWarning")]

exporters = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


class Calls(nn.Module):
    """A module around a function, with the layers that the function uses."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def export(module: nn.Module, x: torch.Tensor, **arguments: Any) -> ir.Model:
    names = {"input_names": ["x"]}
    model = sdt.export(module, (x,), **names, **arguments)
    assert isinstance(model, ir.Model)
    return model


def layers(model: ir.Model) -> list[tuple[str, str]]:
    return [
        (node.name or "", node.metadata_props[LAYER_KEY])
        for node in model.graph.all_nodes()
        if node.op_type == "SpatialDropout"
    ]


def check(module: nn.Module, x: torch.Tensor, count: int, tolerance: float = 1e-6, **arguments: Any) -> ir.Model:
    """Export, and compare with torch in inference and with masks forced in; return the model."""
    model = export(module.train(), x, **arguments)
    assert len(sd.find(model)) == count
    assert len({each.seed for each in sd.find(model)}) == count
    session = sd.session(model)
    feeds = {"x": as_numpy(x)}
    with torch.no_grad():
        expected = module.eval()(x.clone())
    np.testing.assert_allclose(np32(session.run(None, feeds)[0]), np32(expected), rtol=tolerance, atol=tolerance)
    for step in (0, 1):
        got = session.run(None, feeds | {"training_mode": np.array(True), "step": np.array([step])})[0]
        forced, masks = run_forced(module, model, step, x)
        assert masks == count
        np.testing.assert_allclose(np32(got), np32(forced), rtol=tolerance, atol=tolerance)
    return model


def np32(value: Any) -> np.ndarray:
    return np.asarray(value.detach().float() if isinstance(value, torch.Tensor) else value).astype(np.float32)


def as_numpy(x: torch.Tensor) -> np.ndarray:
    return x.float().numpy().astype(ml_dtypes.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()


def image(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*(shape or (2, 6, 5, 4)))


@exporters
def test_layers_in_branches_on_the_same_input_stay_apart(dynamo: bool) -> None:
    module = Calls(
        lambda self, x: self.a(x.relu()) + self.b(x.relu()) * self.c(x.relu()),
        **{name: nn.Dropout2d(0.5) for name in "abc"},
    )
    model = check(module, image(), 3, dynamo=dynamo)
    assert layers(model) == [(f"{name}/SpatialDropout", name) for name in "abc"]


@exporters
def test_a_layer_called_twice_is_two_nodes(dynamo: bool) -> None:
    module = Calls(
        lambda self, x: self.drop(self.conv(self.drop(x))) + x, drop=nn.Dropout2d(0.5), conv=nn.Conv2d(6, 6, 1)
    )
    model = check(module, image(), 2, dynamo=dynamo)
    assert layers(model) == [("drop/SpatialDropout", "drop"), ("drop/SpatialDropout_1", "drop")]


def test_a_shared_module_is_named_after_the_way_to_it() -> None:
    shared = nn.Dropout2d(0.4)
    module = nn.Sequential(nn.ReLU(), shared, nn.Sequential(nn.Conv2d(6, 6, 1), shared))
    assert [layer for _, layer in layers(export(module, image()))] == ["1", "2.1"]
    # A trace knows each module by one name.
    assert [layer for _, layer in layers(export(module, image(), dynamo=False))] == ["1", "1"]


@exporters
def test_containers_and_functional_calls_are_named(dynamo: bool) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return F.dropout2d(self.branches["left"](x), 0.3, self.training) + F.dropout2d(x, 0.3, training=True)

    blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout2d(0.2)) for _ in range(2))
    branches = nn.ModuleDict({"left": nn.Sequential(nn.ReLU(), nn.Dropout2d(0.1))})
    module = Calls(forward, blocks=blocks, branches=branches)
    model = export(module, image(), dynamo=dynamo)
    assert [layer for _, layer in layers(model)] == ["blocks.0.1", "blocks.1.1", "branches.left.1", "", ""]
    assert [name for name, _ in layers(model)][-2:] == ["SpatialDropout", "SpatialDropout_1"]


@exporters
@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [
        (nn.Dropout1d, (2, 6, 5), (2,)),
        (nn.Dropout1d, (6, 5), (1,)),
        (nn.Dropout2d, (2, 6, 5, 4), (2, 3)),
        (nn.Dropout2d, (2, 6, 5), (2,)),  # torch reads this as (N, C, L), and warns
        (nn.Dropout3d, (2, 6, 3, 4, 5), (2, 3, 4)),
        (nn.Dropout3d, (6, 3, 4, 5), (1, 2, 3)),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_every_layer_at_every_rank(
    layer: Any, shape: tuple[int, ...], axes: tuple[int, ...], inplace: bool, dynamo: bool
) -> None:
    module = Calls(
        lambda self, x: self.second((self.first(x * 2) + 1).relu()) * 3,
        first=layer(0.5, inplace=inplace),
        second=layer(0.25, inplace=inplace),
    )
    model = check(module, image(*shape), 2, dynamo=dynamo)
    assert {each.axes for each in sd.find(model)} == {axes}
    assert not {"Unsqueeze", "Squeeze"} & {node.op_type for node in model.graph} or inplace


@exporters
def test_an_in_place_layer_is_seen_by_everybody_who_reads_the_tensor_later(dynamo: bool) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.relu()
        before = x * 1
        return self.drop(x) + 10 * x + 100 * before

    check(Calls(forward, drop=nn.Dropout2d(0.5, inplace=True)), image(), 1, dynamo=dynamo, tolerance=1e-5)


@exporters
def test_a_rate_of_one_drops_all_and_a_rate_of_zero_leaves_no_node(dynamo: bool) -> None:
    model = check(nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout2d(1.0), nn.Conv2d(6, 3, 1)), image(), 1, dynamo=dynamo)
    assert sd.find(model)[0].ratio == 1.0
    model = export(nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout2d(0.0), nn.Conv2d(6, 3, 1)), image(), dynamo=dynamo)
    assert [node.op_type for node in model.graph] == ["Conv", "Conv"]
    assert [value.name for value in model.graph.inputs] == ["x"]


@exporters
@pytest.mark.parametrize("p", [0.3, 0.7, 0.111, 0.999, 1 - 1e-7])
def test_the_scale_comes_from_the_double(p: float, dynamo: bool) -> None:
    model = export(nn.Sequential(nn.ReLU(), nn.Dropout2d(p)), image(), dynamo=dynamo)
    assert sd.find(model)[0].scale == np.float32(1 / (1 - p))
    assert sd.find(model)[0].ratio == np.float32(p)


def test_the_scale_of_the_float32_ratio_would_differ() -> None:
    assert np.float32(1 / (1 - 0.111)) != np.float32(1 / (1 - float(np.float32(0.111))))


@exporters
def test_the_scale_is_torchs_own(dynamo: bool) -> None:
    for p in (0.1, 0.25, 0.7):
        kept = F.dropout2d(torch.ones(1, 999, 1, 1), p, True).max().item()
        model = export(nn.Sequential(nn.ReLU(), nn.Dropout2d(p)), image(), dynamo=dynamo)
        np.testing.assert_array_max_ulp(np.float32(sd.find(model)[0].scale), np.float32(kept), maxulp=1)


@exporters
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [(torch.float16, 1.4287109375, 2e-3), (torch.bfloat16, 1.4296875, 2e-2), (torch.float64, 1.4285714626312256, 1e-6)],
)
def test_other_types(dtype: torch.dtype, scale: float, tolerance: float, dynamo: bool) -> None:
    module = Calls(lambda self, x: self.b(self.a(x * 2).relu()), a=nn.Dropout2d(0.3), b=nn.Dropout2d(0.3)).to(dtype)
    if dtype == torch.bfloat16:  # ONNX Runtime multiplies no bfloat16 on the CPU
        model = export(module, image().to(dtype), dynamo=dynamo)
    else:
        model = check(module, image().to(dtype), 2, tolerance, dynamo=dynamo)
    assert {each.scale for each in sd.find(model)} == {scale}
    assert {each.dtype for each in sd.find(model)} == {str(dtype).removeprefix("torch.")}


@exporters
def test_channels_last_changes_strides_and_nothing_else(dynamo: bool) -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 3), nn.Dropout2d(0.4), nn.ReLU(), nn.Dropout2d(0.4))
    module, x = module.to(memory_format=torch.channels_last), image().to(memory_format=torch.channels_last)
    model = check(module, x, 2, dynamo=dynamo)
    assert {each.axes for each in sd.find(model)} == {(2, 3)}


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
    assert {node.op_type for node in model.graph} <= {"Relu", "SpatialDropout", "Mul", "Constant"}
    session, feeds = sd.session(model), {"x": image().numpy()}
    np.testing.assert_array_equal(session.run(None, feeds)[0], image().relu() * 2)
    forced, _ = run_forced(module, model, 1, image())
    feeds |= {"training_mode": np.array(True), "step": np.array([1])}
    np.testing.assert_array_equal(session.run(None, feeds)[0], forced)
    model = export(module, image(), dynamo=dynamo, dropout="inference")
    assert {node.op_type for node in model.graph} <= {"Relu", "Mul", "Constant"}


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


@exporters
def test_keep_mode_leaves_the_modes_to_the_caller(dynamo: bool) -> None:
    class Sees(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if self.training else x * 2

    module = nn.Sequential(Sees(), nn.Dropout2d(0.5), nn.Dropout(0.5)).train()
    if dynamo:
        with pytest.warns(UserWarning, match="Exporting a model while it is in training mode"):
            kept = export(module, image(), keep_mode=True)
    else:
        mode = torch.onnx.TrainingMode.PRESERVE
        kept = export(module, image(), keep_mode=True, dynamo=False, training=mode, do_constant_folding=False)
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
    assert {node.op_type for node in model.graph} <= {"Selu", "Add", "Constant"}


def test_alpha_dropout_is_left_out_where_element_wise_dropout_is() -> None:
    model = export(nn.Sequential(nn.SELU(), nn.AlphaDropout(0.2), nn.Dropout2d(0.2)), image())
    assert [node.op_type for node in model.graph] == ["Selu", "SpatialDropout"]


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
        return torch.cond(x.sum() > 0, lambda y: self.a(y.sin()) * 2, lambda y: self.b(y.cos()) + 1, (x,))

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


def test_a_scripted_module_goes_through_the_torchscript_exporter() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
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
