"""What dropout is good for, in the demo: a network that says where it is unsure, of digits and pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.cli.terminal import show, table
from onnx_spatialdrop.montecarlo import MCDropout

__all__ = ["of_digits", "of_pixels"]

Array = npt.NDArray[Any]
_SAMPLES: Final = 31
_SHADES: Final = " ░▒▓█"
#: Letters a line of a picture: three of them fit on a line of 80.
_WIDTH: Final = 25


def of_digits(folder: Path, images: Array, labels: Array) -> bool:
    """Print entropies of digits and of noise; return whether it is less sure where it is wrong."""
    mc = MCDropout(folder / "digits_torch.onnx", _SAMPLES)
    noise = np.random.default_rng(0).random(images.shape, np.float32) * images.max()
    result, of_noise = mc.predict(images), mc.predict(noise)
    right = result.prediction == labels
    groups = [
        ("it gets right", result.entropy[right], result.mutual_information[right]),
        ("it gets wrong", result.entropy[~right], result.mutual_information[~right]),
        ("noise", of_noise.entropy, of_noise.mutual_information),
    ]
    rows = [
        (name, str(len(entropy)), f"{entropy.mean():.2f}", f"{unknown.mean():.2f}", "█" * round(12 * entropy.mean()))
        for name, entropy, unknown in groups
        if len(entropy)
    ]
    show(f"4. What it is good for: uncertainty from {_SAMPLES} draws", "")
    columns = ("images", "how many", "entropy", "mutual information", "")
    table("MCDropout(model).predict(images), in nats", columns, rows, right=columns[1:4])
    return bool(right.all() or result.entropy[~right].mean() > result.entropy[right].mean())


def of_pixels(folder: Path) -> bool:
    """Print a map of where a segmentation network is unsure; return whether it is less sure where it is wrong."""
    held = dict(np.load(folder / "canvas.npz"))
    images = held["images"].astype(np.float32) / 255
    result = MCDropout(folder / "canvas.onnx", _SAMPLES, task="segmentation").predict(images)
    wrong = result.prediction != held["labels"]
    entropy = result.entropy
    shown = int(entropy.mean(axis=(1, 2)).argmax())
    pictures = [
        _shaded(images[shown, 0]),
        _shaded(wrong[shown].astype(np.float64)),
        _shaded(entropy[shown] / max(1e-9, float(entropy[shown].max()))),
    ]
    show("5. And pixel by pixel: a segmentation network on digits laid out on a canvas", "")
    heads = ("the canvas", "where it is wrong", "where it is unsure")
    show("  ".join(f"{head:{_WIDTH}}" for head in heads).rstrip())
    show(*("  ".join(lines).rstrip() for lines in zip(*pictures, strict=True)))
    right, mistaken = entropy[~wrong].mean(), entropy[wrong].mean()
    show(
        f"entropy where right {right:.3f}, where wrong {mistaken:.3f} nats, {_SAMPLES} draws,",
        f"{wrong.mean():.1%} of {wrong.size:,} pixels wrong; drawn as a page by",
        "  onnx-spatialdrop uncertainty MODEL --inputs x.npz --labels y.npy --plot p.html",
    )
    return bool(mistaken > right)


def _shaded(values: Array) -> list[str]:
    """Return lines of text, half as many as columns: a letter is twice as high as it is wide."""
    lines = [np.array_split(rows.mean(axis=0), _WIDTH) for rows in np.array_split(values, _WIDTH // 2)]
    levels = [[min(int(part.mean() * len(_SHADES)), len(_SHADES) - 1) for part in line] for line in lines]
    return ["".join(_SHADES[level] for level in line) for line in levels]
