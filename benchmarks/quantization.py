"""Accuracy, spread over draws and calibration error of int8 models beside the float model's, calibrated off and on.

``python benchmarks/quantization.py``: prints the table of docs/quantization.md. Needs scikit-learn, for the images that
calibrate; the held-back ones judge.
"""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import onnx_spatialdrop as sd
from onnx_spatialdrop import metrics, quantization

MODELS = Path(__file__).parent.parent / "models"
sys.path.insert(0, str(MODELS))
import canvas
import digits

DRAWS, CALIBRATION, BATCH = 31, 64, 8
Array = npt.NDArray[Any]


class Off(CalibrationDataReader):
    """Calibration as people do it, with every switch at its default."""

    def __init__(self, images: Array) -> None:
        self.feeds = iter(feeds(images))

    def get_next(self) -> dict[str, Array] | None:
        """Return the next feed."""
        return next(self.feeds, None)


def feeds(images: Array) -> list[dict[str, Array]]:
    return [{"image": images[first : first + BATCH]} for first in range(0, len(images), BATCH)]


def networks() -> dict[str, tuple[Array, Array, Array]]:
    """Return by network: images that calibrate, images and labels that judge."""
    data = digits.load()
    drawn, _ = canvas.canvases(data.train_images, data.train_labels, CALIBRATION, 1)
    judged, classes = canvas.canvases(data.test_images, data.test_labels, 60, 2)
    return {
        "digits_torch": (data.train_images[:CALIBRATION, None], data.test_images[:, None], data.test_labels),
        "canvas": (drawn, judged, classes),
    }


def draws(model: Any, images: Array) -> Array:
    session = sd.session(model)
    on = {"image": images, "training_mode": np.array(True)}
    return np.stack([session.run(["logits"], on | {"step": np.array([step])})[0] for step in range(DRAWS)])


def judged(logits: Array, labels: Array) -> tuple[float, float, float]:
    """Return accuracy of the mean, standard deviation over draws, and expected calibration error of the mean."""
    exponents = np.exp(logits - logits.max(2, keepdims=True))
    mean = (exponents / exponents.sum(2, keepdims=True)).mean(0)
    accuracy = float((mean.argmax(1) == labels).mean())
    return accuracy, float(logits.std(0).mean()), metrics.calibration_error(mean, labels, axis=1)


def main(folder: Path) -> None:
    """Print a line a model."""
    print("| network | model | accuracy | spread | of float | calibration error |\n|---|---|--:|--:|--:|--:|")
    for name, (calibration, images, labels) in networks().items():
        source = MODELS / f"{name}.onnx"
        float_spread = judged(draws(source, images), labels)[1]
        for what, model in models(source, calibration, folder):
            accuracy, spread, error = judged(draws(model, images), labels)
            shares = f"{accuracy:.4f} | {spread:.3f} | {spread / float_spread:.3f} | {error:.4f}"
            print(f"| {name} | {what} | {shares} |", flush=True)


def models(source: Path, calibration: Array, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the float model, and it quantised by ONNX Runtime alone and by this package."""
    yield "float", source
    for form in ("attached", "expanded"):
        (sd.attach if form == "attached" else sd.expand)(source, folder / "source.onnx")
        quantize_static(folder / "source.onnx", folder / "made.onnx", Off(calibration))
        yield f"ONNX Runtime alone, {form}, calibrated off", folder / "made.onnx"
    for activations, channels in itertools.product((QuantType.QInt8, QuantType.QUInt8), (False, True)):
        how = {"activation_type": activations, "per_channel": channels}
        what = f"static, {activations.name[1:].lower()}, {'per channel' if channels else 'per tensor'}"
        yield what, quantization.quantize_static(source, reader=feeds(calibration), **how)
    yield "dynamic", quantization.quantize_dynamic(source)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
