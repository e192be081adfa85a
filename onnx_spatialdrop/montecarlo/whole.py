"""Compare sums of draws with whole runs of the model, draw for draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.montecarlo.drawn import as_probabilities
from onnx_spatialdrop.montecarlo.result import MCResult
from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["compare"]

Array = npt.NDArray[Any]
_TOLERANCE = 1e-5


def compare(result: MCResult, targets: Sequence[Target], run: Callable[[Sequence[str], int], Sequence[Array]]) -> None:
    """Raise VerifyError where the means of whole runs differ from those of ``result``.

    Args:
        result: the sums.
        targets: the outputs.
        run: gives the outputs of these names in draw t.
    """
    names = [target.value.name or "" for target in targets]
    means = {name: np.zeros(result[name].mean.shape) for name in names}
    for t in range(int(result.samples.max())):
        for target, y in zip(targets, run(names, t), strict=True):
            counted = (t < result.samples).reshape(-1, *([1] * (y.ndim - 1)))
            means[target.value.name or ""] += np.where(counted, as_probabilities(target, y), 0)
    for name in names:
        each = result[name]
        mean = means[name] / each.samples.reshape(-1, *([1] * (each.mean.ndim - 1)))
        difference, largest = float(np.abs(mean - each.mean).max()), float(np.abs(mean).max())
        if difference > _TOLERANCE * max(largest, 1e-30):
            raise VerifyError(
                f"output {name!r}: the mean of whole runs differs by {difference:.1e} of {largest:.1e}; the cut of "
                "this model is wrong, please report it; chunk=1 may lead around it"
            )
