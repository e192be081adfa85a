"""Dropout layers of libraries: stochastic depth, DropPath and their like, told by what they do, not by their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_checks import export, exporters, layers
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd
from onnx_spatialdrop.export.torch.custom import Custom, read
from onnx_spatialdrop.verify import verify

pytestmark = TORCH_WARNINGS


class Layer(nn.Module):
    """A layer that is the identity in inference mode; ``rate`` is dropped, or kept."""

    def __init__(self, rate: float, scale: bool = True) -> None:
        super().__init__()
        self.rate, self.scale, self.eps = rate, scale, 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights(x) if self.training and self.rate > 0.0 else x

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Row(Layer):
    """timm's DropPath, and torchvision's StochasticDepth of mode "row"."""

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        kept = x.new_empty((x.shape[0], *(1 for _ in x.shape[1:]))).bernoulli_(1 - self.rate)
        return kept.div_(1 - self.rate) if self.scale else kept


class Batch(Layer):
    """torchvision's StochasticDepth of mode "batch"."""

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        return torch.empty([1] * x.dim(), dtype=x.dtype).bernoulli_(1 - self.rate).div_(1 - self.rate)


class Floored(Layer):
    """The DropPath of transformers."""

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        return (1 - self.rate + torch.rand(x.shape[0], *(1 for _ in x.shape[1:]))).floor() / (1 - self.rate)


class Locked(Layer):
    """Dropout that keeps one mask over time, by the fraction that it keeps."""

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.rand(x.shape[0], 1, x.shape[2]) < self.rate).to(x.dtype) / self.rate


class Own(Layer):
    """Element-wise dropout written by hand."""

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x).bernoulli_(1 - self.rate) / (1 - self.rate)


class Noise(Layer):
    def weights(self, x: torch.Tensor) -> torch.Tensor:
        return 1 + self.rate * torch.randn_like(x)


class Blocks(Layer):
    """DropBlock: what it keeps is multiplied by how much of the map is kept, in this draw."""

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        mask = 1 - torch.nn.functional.max_pool1d(torch.empty_like(x).bernoulli_(self.rate), 3, 1, 1)
        return mask * (mask.numel() / (mask.sum() + 1e-6))


@pytest.mark.parametrize(
    ("layer", "rank", "found"),
    [
        (Row(0.1), 4, Custom(0.1, (1, 2, 3), scaled=True)),
        (Row(0.002), 2, Custom(0.002, (1,), scaled=True)),
        (Row(0.3, scale=False), 3, Custom(0.3, (1, 2), scaled=False)),
        (Batch(0.2), 3, Custom(0.2, (0, 1, 2), scaled=True)),
        (Floored(0.2), 4, Custom(0.2, (1, 2, 3), scaled=True)),
        (Locked(0.75), 3, Custom(0.25, (1,), scaled=True)),
        (Own(0.5), 3, Custom(0.5, (), scaled=True)),
        (Noise(0.5), 3, None),
        (Blocks(0.1), 3, None),
        (nn.RReLU(0.1, 0.3), 3, None),
        (Row(0.1), 9, None),
    ],
)
def test_what_a_layer_drops_is_read_from_its_draws(layer: nn.Module, rank: int, found: Custom | None) -> None:
    before, state = dict(vars(layer)), torch.get_rng_state()
    assert read(layer, rank) == found
    assert vars(layer) == before
    assert torch.equal(torch.get_rng_state(), state)


@exporters
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("layer", "axes", "scale"),
    [
        (Row(0.25), (1, 2), 4 / 3),
        (Row(0.25, scale=False), (1, 2), 1.0),
        (Floored(0.25), (1, 2), 4 / 3),
        (Locked(0.75), (1,), 4 / 3),
        (Batch(0.25), (0, 1, 2), 4 / 3),
    ],
    ids=["row", "unscaled", "floored", "locked", "batch"],
)
def test_it_becomes_a_node_that_drops_what_the_layer_drops(
    layer: nn.Module, axes: tuple[int, ...], scale: float, training: bool, dynamo: bool
) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.path = nn.Linear(5, 5), layer

        def forward(self, x: Any) -> Any:
            return x + self.path(self.linear(x))

    module, x = Residual().train(training), torch.linspace(-1, 1, 40).reshape(2, 4, 5)
    model = export(module, x, dynamo=dynamo)
    (node,) = sd.find(model)
    assert layers(model) == [("path", "path")]
    assert (node.axes, node.ratio) == (axes, 0.25)
    assert node.scale == pytest.approx(scale)
    with torch.no_grad():
        expected = module.eval()(x)
    np.testing.assert_allclose(sd.session(model).run(None, {"x": x.numpy()})[0], expected, rtol=1e-6, atol=1e-6)
    result = verify(module, export(module, x, dynamo=dynamo, mask_inputs=True), x.numpy(), steps=5)
    assert result, str(result)
    assert "forward" not in vars(module.path)


@exporters
def test_element_wise_ones_are_left_out_unless_they_are_asked_for(dynamo: bool) -> None:
    module, x = nn.Sequential(nn.Linear(5, 5), Own(0.5)), torch.ones(3, 5)
    assert not layers(export(module, x, dynamo=dynamo))
    assert layers(export(module, x, dynamo=dynamo, elementwise=True)) == [("1", "1")]
    with pytest.warns(UserWarning, match=r"^not in the exported model: element-wise dropout in '1' \(elementwise=True"):
        export(module, x, dynamo=dynamo, elementwise=None)


@exporters
@pytest.mark.parametrize("layer", [Noise(0.5), Blocks(0.1)])
def test_what_a_mask_and_a_factor_cannot_say_is_left_out_and_told(layer: nn.Module, dynamo: bool) -> None:
    module = nn.Sequential(nn.Linear(5, 5), layer, nn.Dropout1d(0.5))
    with pytest.warns(UserWarning, match=r"noise \(aten\.\w+\.\w+\) in '1' \(no mask and factor can say it\)$"):
        model = export(module, torch.ones(2, 3, 5), dynamo=dynamo)
    assert layers(model) == [("2", "2")]
    assert not any(node.op_type.startswith("Random") for node in model.graph)


@exporters
def test_a_layer_that_is_called_on_tensors_of_two_ranks_shares_axes_of_each(dynamo: bool) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = Row(0.25)

        def forward(self, x: Any) -> Any:
            return x + self.path(self.path(x).flatten(2).sin()).unflatten(2, (4, 5))

    module, x = Both().eval(), torch.linspace(-1, 1, 120).reshape(2, 3, 4, 5)
    model = export(module, x, dynamo=dynamo, mask_inputs=True)
    assert sorted(each.axes for each in sd.find(export(module, x, dynamo=dynamo))) == [(1, 2), (1, 2, 3)]
    result = verify(module, model, x.numpy(), steps=3)
    assert result, str(result)
