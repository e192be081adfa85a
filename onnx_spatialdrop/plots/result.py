"""Which pictures a result gets: by its task, its labels, and whether its inputs are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.metrics.judged import JudgedClasses, JudgedValues
from onnx_spatialdrop.montecarlo.result import Statistics
from onnx_spatialdrop.plots import figures

__all__ = ["pictures"]

Array = npt.NDArray[Any]
Section = tuple[str, Sequence[tuple[bytes, str]]]
_ROWS = 6


def pictures(
    result: Statistics,
    judged: JudgedClasses | JudgedValues | None,
    inputs: Mapping[str, Array],
    labels: Array | None,
) -> list[Section]:
    """Return headings with PNG files and captions.

    Args:
        result: the statistics of an output.
        judged: these held against labels, or None.
        inputs: the model's inputs; the first that looks like images is drawn.
        labels: the truth, or None.
    """
    sections: list[Section] = []
    images = _images(inputs)
    if result.task == "classification" and images is not None:
        sections += _of_images(result, images, labels)
    if isinstance(judged, JudgedClasses):
        shown = [
            (figures.png(figures.entropies(judged)), "Entropies of right and wrong rows, each as a share of its own."),
            (
                figures.png(figures.risks(judged)),
                "Errors that are left when the least sure rows are not answered; the lower, the better they are found.",
            ),
            (
                figures.png(figures.reliabilities(judged)),
                "Below the dotted line it is too sure. The temperature was fitted on the even samples, the curves are "
                "of the odd ones; a dot's size is its number of rows.",
            ),
        ]
        sections.append(("Held against the truth", shown))
    if isinstance(judged, JudgedValues):
        caption = "Squared error that is left when the rows of the largest variance are not answered."
        sections.append(("Held against the truth", [(figures.png(figures.spread(judged)), caption)]))
    return sections


def _of_images(result: Statistics, images: Array, labels: Array | None) -> list[Section]:
    entropy = result.entropy
    if entropy.ndim == 1:
        drawn = figures.unsure(images, entropy, result.prediction, labels)
        return [("What it is least sure of", [(figures.png(drawn), "The samples of the largest entropy.")])]
    if entropy.ndim != 3 or entropy.shape[1:] != images.shape[1:3]:
        return []
    rows = np.argsort(-entropy.mean(axis=(1, 2)), kind="stable")[:_ROWS]
    rows = np.sort(rows)
    drawn = figures.maps(
        images[rows],
        result.prediction[rows],
        entropy[rows],
        result.mutual_information[rows],
        None if labels is None else labels[rows],
        result.mean.shape[result.axis],
    )
    caption = "Entropy is the uncertainty in all, mutual information what the network does not know, a pixel each."
    return [("Where it is unsure", [(figures.png(drawn), caption)])]


def _images(inputs: Mapping[str, Array]) -> Array | None:
    """Return the first input that looks like images, as [N, H, W] or [N, H, W, 3] in [0, 1]."""
    for array in inputs.values():
        if array.ndim == 4 and array.shape[1] in (1, 3):
            array = np.moveaxis(array, 1, -1)
        if array.ndim == 3 and min(array.shape[1:]) >= 6 and array.dtype.kind in "uf":
            array = array[..., None]
        if array.ndim != 4 or array.shape[-1] not in (1, 3):
            continue
        low, high = float(array.min()), float(array.max())
        scaled = (array.astype(np.float64) - low) / max(high - low, 1e-12)
        return np.asarray(scaled[..., 0] if scaled.shape[-1] == 1 else scaled)
    return None
