"""Are a regression's spreads right? Likelihood and coverage of Gaussian predictions."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.metrics.checks import Array, same_shape

__all__ = ["gaussian_nll", "interval_coverage"]


def gaussian_nll(mean: npt.ArrayLike, variance: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """Return the mean of log(2 pi variance) / 2 + (value - mean)**2 / (2 variance), in nats.

    Raises:
        SpecError: shapes that differ, or a variance that is not positive.
    """
    m, v, y = _checked(mean, variance, values)
    return float((0.5 * np.log(2 * np.pi * v) + (y - m) ** 2 / (2 * v)).mean())


def interval_coverage(
    mean: npt.ArrayLike, variance: npt.ArrayLike, values: npt.ArrayLike, level: float = 0.95
) -> float:
    """Return the share of values inside the central interval of probability ``level`` of N(mean, variance).

    Raises:
        SpecError: shapes that differ, a variance that is not positive, or a level outside (0, 1).
    """
    level = arguments.fraction(level, "level")
    if level in (0, 1):
        raise SpecError(f"level is {level:g}; it must lie between 0 and 1")
    m, v, y = _checked(mean, variance, values)
    return float((np.abs(y - m) <= NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(v)).mean())


def _checked(mean: npt.ArrayLike, variance: npt.ArrayLike, values: npt.ArrayLike) -> list[Array]:
    m, v, y = same_shape(mean=mean, variance=variance, values=values)
    if v.min() <= 0:
        raise SpecError(f"variance has {v.min():g} in it; it must be positive")
    return [m, v, y]
