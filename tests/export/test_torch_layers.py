"""Every way to write spatial dropout in torch, at every rank, rate and type, through both exporters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

import torch.nn.functional as F
from export.torch_checks import Calls, check, export, exporters, image, layers, operators
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd

pytestmark = [*TORCH_WARNINGS, pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input:UserWarning")]


@exporters
def test_layers_in_branches_on_the_same_input_stay_apart(dynamo: bool) -> None:
    module = Calls(
        lambda self, x: self.a(x.relu()) + self.b(x.relu()) * self.c(x.relu()),
        **{name: nn.Dropout2d(0.5) for name in "abc"},
    )
    model = check(module, image(), 3, dynamo=dynamo)
    assert layers(model) == [(name, name) for name in "abc"]


@exporters
def test_a_layer_called_twice_is_two_nodes(dynamo: bool) -> None:
    module = Calls(
        lambda self, x: self.drop(self.conv(self.drop(x))) + x, drop=nn.Dropout2d(0.5), conv=nn.Conv2d(6, 6, 1)
    )
    model = check(module, image(), 2, dynamo=dynamo)
    assert layers(model) == [("drop", "drop"), ("drop:1", "drop")]


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
    assert [name for name, _ in layers(model)][-2:] == ["SpatialDropout", "SpatialDropout:1"]


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
    assert operators(model) == ["Conv", "Conv"]
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
