"""Canvases of digits with a true label a pixel: scikit-learn's digits, laid out at random. No framework is needed."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "SIZE", "canvases"]

#: Pixels of a canvas along each side.
SIZE: Final = 40
#: Background, then the digits 0 to 9.
CLASSES: Final = 11
_DIGIT: Final = 16
_INK: Final = 0.35


def canvases(
    images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], count: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return ``count`` canvases [count, 1, 40, 40] in [0, 1] and their labels [count, 40, 40].

    Three or four digits, twice as large, at random places, later ones over earlier ones; then noise. A pixel with ink
    has its digit's number plus 1, every other one 0.

    Args:
        images: digits [samples, 8, 8] in [0, 1].
        labels: 0 to 9.
        count: how many.
        seed: of places, digits and noise.
    """
    rng = np.random.default_rng(seed)
    drawn = np.zeros((count, SIZE, SIZE), np.float32)
    classes = np.zeros((count, SIZE, SIZE), np.uint8)
    for canvas, label in zip(drawn, classes, strict=True):
        for _ in range(int(rng.integers(3, 5))):
            index = int(rng.integers(len(images)))
            digit = _larger(images[index])
            top, left = (int(at) for at in rng.integers(0, SIZE - _DIGIT + 1, 2))
            here = np.s_[top : top + _DIGIT, left : left + _DIGIT]
            ink = digit > _INK
            canvas[here] = np.where(ink, digit, np.maximum(canvas[here], digit))
            label[here] = np.where(ink, labels[index] + 1, label[here])
    drawn += 0.12 * rng.standard_normal(drawn.shape).astype(np.float32)
    return np.clip(drawn, 0, 1)[:, None], classes


def _larger(digit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a digit at twice its size, straight lines between its pixels."""
    at = np.linspace(0, 7, _DIGIT)
    low = np.minimum(at.astype(int), 6)
    part = (at - low)[:, None]
    rows = digit[low] * (1 - part) + digit[low + 1] * part
    columns = rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T
    return np.asarray(columns, np.float32)
