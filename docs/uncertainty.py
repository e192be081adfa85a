"""Draw docs/uncertainty.png, the picture that the README opens with: ``python docs/uncertainty.py``."""

from pathlib import Path

import numpy as np

import onnx_spatialdrop as sd
from onnx_spatialdrop.plots import figures

ROOT = Path(__file__).parent.parent
held = np.load(ROOT / "models" / "canvas.npz")
images, labels = held["images"].astype(np.float32) / 255, held["labels"]
result = sd.MCDropout(ROOT / "models" / "canvas.onnx", 62, task="segmentation").predict(images)
rows = np.sort(np.argsort(-result.entropy.mean(axis=(1, 2)), kind="stable")[:3])
drawn = figures.maps(
    images[rows, 0], result.prediction[rows], result.entropy[rows], result.mutual_information[rows], labels[rows], 11
)
(ROOT / "docs" / "uncertainty.png").write_bytes(figures.png(drawn))
