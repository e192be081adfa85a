"""The data: scikit-learn's bundled digits, split once and for all, and what is recorded beside a model.

Nothing here is fetched, and nothing knows of a framework.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

__all__ = ["HELD_BACK", "SEED", "Digits", "load", "replace_bytes", "save_record"]

#: Images that no model is trained on.
HELD_BACK: Final = 360
#: Seed of the split and of every framework.
SEED: Final = 0


class Digits(NamedTuple):
    """Images in [0, 1], float32, shape (samples, 8, 8), and labels 0 to 9, int64."""

    train_images: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


def load() -> Digits:
    """Return the digits, split into training and held-back images, equally over the ten classes."""
    bundled = load_digits()
    images, labels = (bundled.images / 16).astype(np.float32), bundled.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=HELD_BACK, random_state=SEED, stratify=labels
    )
    return Digits(train_x, train_y, test_x, test_y)


def save_record(path: Path, images: npt.NDArray[Any], labels: npt.NDArray[np.int64], logits: npt.NDArray[Any]) -> None:
    """Write the held-back images as the model takes them, their labels, and the framework's own eval logits."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, images=images, labels=labels, logits=logits)
    os.replace(temporary, path)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
