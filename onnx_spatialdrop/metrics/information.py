"""Entropies of draws, in nats: what is uncertain in all, what the data leave open, and what the network does not know.

Sources: Shannon (1948); Houlsby et al. (2011), "Bayesian active learning for classification and preference learning";
Gal and Ghahramani (2016), "Dropout as a Bayesian approximation".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.metrics.checks import Array, numbers

__all__ = ["entropy", "expected_entropy", "mutual_information", "variation_ratio"]


def entropy(probabilities: npt.ArrayLike, axis: int = -1) -> Array:
    """Return -sum p log p over the axis of classes, in nats.

    Args:
        probabilities: any shape; of a mean over draws it is the predictive entropy.
        axis: the axis of classes.
    """
    p = numbers(probabilities, "probabilities")
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(axis=axis))


def expected_entropy(draws: npt.ArrayLike, axis: int = -1) -> Array:
    """Return the mean over draws [T, ...] of the entropy of each, in nats; ``axis`` is that of classes in ``draws``."""
    p = _draws(draws, axis)
    return np.asarray(entropy(p, axis).mean(axis=0))


def mutual_information(draws: npt.ArrayLike, axis: int = -1) -> Array:
    """Return the mean over draws [T, ...] of KL(p_t || mean), in nats; never negative.

    It equals entropy(mean) - expected_entropy(draws), without its cancellation.
    """
    p = _draws(draws, axis)
    mean = p.mean(axis=0)
    ratio = np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(mean, 1e-300))
    return np.asarray(np.maximum((p * ratio).sum(axis=axis), 0).mean(axis=0))


def variation_ratio(draws: npt.ArrayLike, axis: int = -1) -> Array:
    """Return the share of draws [T, ...] whose largest class is not the most frequent one (Freeman 1965)."""
    p = _draws(draws, axis)
    best = p.argmax(axis=axis)
    counts = np.stack([(best == label).sum(axis=0) for label in range(p.shape[axis])])
    return np.asarray(1 - counts.max(axis=0) / len(p))


def _draws(draws: npt.ArrayLike, axis: int) -> Array:
    p = numbers(draws, "draws")
    if p.ndim < 2 or axis % p.ndim == 0:
        raise SpecError(f"draws have shape {p.shape}; draws come first, and classes along another axis, not {axis}")
    return p
