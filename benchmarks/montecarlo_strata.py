"""Squared error of means, entropies and mutual information: independent draws over balanced ones, trained networks.

``python benchmarks/montecarlo_strata.py [REPETITIONS]``: truth is 2,000 draws more; every repetition has other steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import onnx_spatialdrop as sd

MODELS = Path(__file__).parent.parent / "models"
SAMPLES = 31
TRUTH = 2015
#: Network, how its record's images are read, rows.
NETWORKS = (("digits_torch", 40), ("digits_keras", 40), ("digits_keras_1d", 40), ("canvas", 3))
STATISTICS = ("mean", "entropy", "mutual_information")


def images_of(name: str, rows: int) -> np.ndarray:
    """Return noisy held-back images, so that the network is not sure of all."""
    held = np.load(MODELS / f"{name}.npz")["images"][:rows]
    images = held.astype(np.float32) / 255 if held.dtype == np.uint8 else held
    noise = np.random.default_rng(0).normal(0, 0.2, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32) if name != "canvas" else images


def main(repetitions: int) -> None:
    """Print a line a network."""
    for name, rows in NETWORKS:
        images, task = images_of(name, rows), "segmentation" if name == "canvas" else "classification"
        runs = {}
        for strata in (1, SAMPLES):
            runs[strata] = sd.MCDropout(MODELS / f"{name}.onnx", SAMPLES, task=task, strata=strata)
        truth = {s: mc.predict(images, ids=10**6 + np.arange(rows), samples=TRUTH) for s, mc in runs.items()}
        exact = {key: (getattr(truth[1], key) + getattr(truth[SAMPLES], key)) / 2 for key in STATISTICS}
        errors: dict[tuple[int, str], list[float]] = {(s, key): [] for s in runs for key in STATISTICS}
        means: dict[int, list[np.ndarray]] = {s: [] for s in runs}
        for repetition in range(repetitions):
            for strata, mc in runs.items():
                result = mc.predict(images, ids=repetition * rows + np.arange(rows))
                means[strata].append(result.mean)
                for key in STATISTICS:
                    errors[strata, key].append(float(((getattr(result, key) - exact[key]) ** 2).mean()))
        gains = [f"{key} {np.mean(errors[1, key]) / np.mean(errors[SAMPLES, key]):.2f} x" for key in STATISTICS]
        balanced, alone = np.stack(means[SAMPLES]), np.stack(means[1])
        noise = balanced.var(0, ddof=1) / repetitions + alone.var(0, ddof=1) * SAMPLES / TRUTH
        shift = np.sqrt(((balanced.mean(0) - truth[1].mean) ** 2).sum() / noise.sum())
        print(
            f"{name:16} strata {runs[SAMPLES].strata:2}: squared error less by {', '.join(gains)}; "
            f"mean against independent draws: {shift:.2f} standard errors",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
