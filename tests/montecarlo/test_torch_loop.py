"""Statistics beside a loop of forward passes in PyTorch that drops by the same masks. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator.reference import dropout_mask
from onnx_spatialdrop.passes.found import Found

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.onnx
torch = pytest.importorskip("torch")
nn = torch.nn

SAMPLES, ROWS, STRIDE = 31, 5, 2**20 // 31 * 31


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 10),
    ).eval()  # fmt: skip


def drop_by(module: torch.nn.Module, node: Found, draws: Iterator[int]) -> None:
    """Have a dropout module multiply by the masks that a node draws, one step a forward pass and row."""

    def masked(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], __: torch.Tensor) -> torch.Tensor:
        (x,) = inputs
        steps = np.arange(ROWS) * STRIDE + next(draws)
        mask = dropout_mask(tuple(x.shape), node.axes, node.ratio, node.seed, steps, strata=31)
        return x * torch.from_numpy(mask.astype(np.float32)) * node.scale

    module.register_forward_hook(masked)


def test_statistics_of_a_loop_with_the_same_masks(tmp_path: Path) -> None:
    import onnx_spatialdrop.export.torch as sdt

    module, x = network(), torch.randn(ROWS, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "model.onnx"
    sdt.export(module, (x,), file, elementwise=True, dynamic_shapes=({0: torch.export.Dim("N")},), input_names=["x"])
    result = sd.MCDropout(file, samples=SAMPLES, task="classification").predict({"x": x.numpy()})

    dropouts = [each for each in module if isinstance(each, nn.Dropout | nn.Dropout2d)]
    for each, node in zip(dropouts, sd.find(file), strict=True):
        drop_by(each, node, iter(range(SAMPLES)))
    with torch.no_grad():
        p = torch.stack([module(x) for _ in range(SAMPLES)]).double().softmax(2).numpy()
    mean = p.mean(0)
    entropy, expected = -(mean * np.log(mean)).sum(1), -(p * np.log(p)).sum(2).mean(0)
    np.testing.assert_allclose(result.mean, mean, atol=1e-6)
    np.testing.assert_allclose(result.variance, p.var(0), atol=1e-6)
    np.testing.assert_allclose(result.entropy, entropy, atol=1e-6)
    np.testing.assert_allclose(result.mutual_information, entropy - expected, atol=1e-6)
    assert p.std(0).max() > 1e-3
    assert result.mutual_information.min() >= 0
