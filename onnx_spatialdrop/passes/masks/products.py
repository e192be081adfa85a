"""What a node becomes once its mask is a value: Y = where(dropped, +0, X * where(training, scale, 1)).

Values come last, and the condition is no Not: ONNX Runtime would make +0 of a -0 that is kept.
"""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.masks.builder import TRAINING, MaskBuilder
from onnx_spatialdrop.passes.masks.plan import Entry

__all__ = ["Products"]

_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)


class Products:
    """Writes the products of the nodes of a group; what they multiply by is computed once for all of them.

    Args:
        shared: where that goes.
        training: the switch, bool without dimensions; None where it is constantly true.
    """

    def __init__(self, shared: MaskBuilder, training: ir.Value | None) -> None:
        self._shared, self._training = shared, training
        self._factors: dict[tuple[bytes, str], ir.Value] = {}

    def write(self, build: MaskBuilder, entry: Entry, dropped: ir.Value) -> ir.Value:
        """Append the product of a node to ``build``, and return Y.

        Args:
            build: where it goes.
            entry: the node.
            dropped: bool, of a shape that broadcasts to X's; false while nothing is dropped.
        """
        wide = entry.dtype == _BFLOAT16  # which ONNX Runtime cannot multiply; a product is rounded once all the same
        x = build.add("Cast", entry.x, role="x_float", to=ir.DataType.FLOAT) if wide else entry.x
        scale = _scale(entry)
        factor, zero = self._factor(scale), build.constant(np.zeros((), scale.dtype))
        if entry.dtype is None:
            factor = build.add("CastLike", factor, entry.x, role="factor_like")
            zero = build.add("CastLike", zero, entry.x, role="zero_like")
        scaled = build.add("Mul", x, factor, role="scaled")
        y = build.add("Where", dropped, zero, scaled, role="chosen")
        return build.add("Cast", y, role="rounded", to=ir.DataType.BFLOAT16) if wide else y

    def _factor(self, scale: npt.NDArray[Any]) -> ir.Value:
        if self._training is None:
            return self._shared.constant(scale)
        key = (scale.tobytes(), scale.dtype.str)
        if key not in self._factors:
            on, off = self._shared.constant(scale), self._shared.constant(np.ones((), scale.dtype))
            role = f"factor_{len(self._factors)}"
            self._factors[key] = self._shared.port("Where", self._training, on, off, role=role, reads=TRAINING)
        return self._factors[key]


def _scale(entry: Entry) -> npt.NDArray[Any]:
    """Return what kept values are multiplied by, in the type that X is multiplied in; in double where it is unknown."""
    dtype = np.dtype(np.float64) if entry.dtype is None else entry.dtype
    exact = spec.kept_scale(entry.attributes.ratio, entry.attributes.scale, dtype)
    return exact.astype(np.float32) if dtype == _BFLOAT16 else exact
