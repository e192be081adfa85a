"""Every rate k/20 with 20 seeds: five training-mode passes each of Dropout1d, 2d and 3d, through mask inputs."""

from __future__ import annotations

import pytest
from building import dropout_ir

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from torch import nn  # noqa: E402

import onnx_spatialdrop as sd  # noqa: E402
from onnx_spatialdrop.verify import verify  # noqa: E402
from onnx_spatialdrop.verify.torch import TorchRun  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("k", range(1, 21))
def test_all_masks_are_torchs_own(kind: type[nn.Module], k: int) -> None:
    spatial = int(kind.__name__[-2])
    shape = (5, 16, *range(2, 2 + spatial))
    axes = tuple(range(2, 2 + spatial))
    model = dropout_ir(shape=("N", 16, *[None] * spatial), axes=axes, ratio=k / 20, mask=False, wrap=True)
    model = sd.expand(model, form="mask-inputs")

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = kind(k / 20)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -self.drop(x.abs())

    x, entries = torch.randn(shape).numpy(), 0
    for seed in range(20):
        result = verify(TorchRun(Wrapped(), seed=1000 * k + seed), model, x)
        assert result, str(result)
        entries += result.layers[0].equal
    assert entries == 20 * 5 * 5 * 16
