"""Writes gradients.npz with PyTorch's autograd, run by hand: ``PYTHONPATH=. python tests/training/golden.py``.

The tests read the file, so that they compare with PyTorch where there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from onnx_spatialdrop import reference

FILE = Path(__file__).with_name("gradients.npz")
SHAPE = (3, 4, 5, 6)
SEED, STEP = 7, 3

#: Axes and ratio of each case: NCHW maps, NHWC maps, sequences, one axis, element-wise.
CASES: tuple[tuple[tuple[int, ...], float], ...] = (
    ((2, 3), 0.3),
    ((1, 2), 0.3),
    ((1,), 0.25),
    ((0, 3), 0.5),
    ((-1,), 0.1),
    ((), 0.9),
    ((2, 3), 0.0),
)


def key(axes: tuple[int, ...], ratio: float) -> str:
    return f"axes_{'_'.join(map(str, axes))}_ratio_{ratio}"


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return x and the weights of the loss ``sum(weights * y * y) / 2``."""
    rng = np.random.default_rng(20)
    return rng.normal(size=SHAPE), rng.normal(size=SHAPE)


def torch_gradient(x: np.ndarray, weights: np.ndarray, mask: np.ndarray, ratio: float) -> np.ndarray:
    """Return d loss / d x as PyTorch's autograd finds it, in x's type, with the given mask."""
    import torch

    leaf = torch.tensor(x, requires_grad=True)
    y = leaf * torch.tensor(mask).to(leaf.dtype).div(1 - ratio)  # what feature_dropout does with its noise
    (torch.tensor(weights) * y * y).sum().div(2).backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


def main() -> None:
    x, weights = data()
    arrays = {"x": x, "weights": weights}
    for axes, ratio in CASES:
        mask = reference.dropout_mask(SHAPE, axes, ratio, SEED, STEP)
        arrays[f"{key(axes, ratio)}/mask"] = mask
        arrays[f"{key(axes, ratio)}/gradient"] = torch_gradient(x, weights, mask, ratio)
        arrays[f"{key(axes, ratio)}/kept"] = torch_gradient(x, weights, np.ones_like(mask), ratio)
    temporary = FILE.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, FILE)


if __name__ == "__main__":
    main()
