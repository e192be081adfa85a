"""What a value is, given one random draw: a two-valued mask, or an activation times one. Plain arithmetic.

An entry of the draw has two outcomes: 0, its number lies below the threshold, and 1, it does not. A value that
depends on the draw is x * factor + offset, with one factor and one offset an outcome; a mask has no x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.curves import Expression
from onnx_spatialdrop.analysis.dim_algebra import Dims, ShapeOf

__all__ = [
    "AbstractValue",
    "Curve",
    "Layout",
    "NotRepresentableError",
    "ScaleChain",
    "TwoValued",
    "ViewedValue",
    "half_ulp",
    "recover",
]


class NotRepresentableError(Exception):
    """A value that is none of these; the message says what it is instead."""


@dataclass(frozen=True)
class Layout:
    """Where the entries of a draw stand in a tensor.

    Attributes:
        entries: the shape of the draw: 1 along axes where one entry is repeated.
        dims: the shape of the tensor itself.
        view: by which reshapings and transpositions the draw's own order was left; equal views, equal order.
    """

    entries: Dims | ShapeOf
    dims: Dims | ShapeOf
    view: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A function of the uniform number that does not take two values, such as the draw itself; see curves.py."""

    expression: Expression
    layout: Layout
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ViewedValue:
    """A value behind views: ``views`` applied to ``value``, which the graph computes in that order of other numbers.

    tf2onnx moves transpositions between the scale and the mask: mask * Transpose(scale * value). Then the activation is
    Transpose(value), which no node computes.

    Attributes:
        value: a value of the graph.
        views: nodes that only rearrange, the first to be applied first; empty for the value itself.
        passed: the nodes between the operand and ``value``: views, and constant factors.
    """

    value: ir.Value
    views: tuple[ir.Node, ...] = ()
    passed: tuple[ir.Node, ...] = field(default=(), compare=False)

    @property
    def outer(self) -> ir.Value:
        """A value of the graph that has the level's shape."""
        return self.views[-1].outputs[0] if self.views else self.value


@dataclass(frozen=True)
class ScaleChain:
    """A value that is a root times a number, and what lies between.

    Attributes:
        root: what everything is a multiple of.
        levels: (level, multiple of the root) for the operand itself and what it was computed from, nearest first; the
            root is the last.
    """

    root: ViewedValue
    levels: tuple[tuple[ViewedValue, float], ...]


@dataclass(frozen=True)
class TwoValued:
    """A value with two outcomes an entry.

    Attributes:
        threshold: the probability of outcome 0, in (0, 1).
        factor: what the root is multiplied by, one number an outcome; zeros for a mask.
        offset: what is added, one number an outcome; its dtype is the value's.
        layout: where the entries stand; for x * factor, in the factor's own shape.
        precision: how exactly the threshold is known; half a unit in the last place of its type.
        x: the activation; None for a mask.
        cuts: where the outcome changes, if that is not at the threshold alone.
    """

    threshold: float
    factor: np.ndarray
    offset: np.ndarray
    layout: Layout
    precision: float = 0.0
    x: ScaleChain | None = None
    cuts: tuple[float, ...] = ()


AbstractValue = Curve | TwoValued


def half_ulp(dtype: np.dtype[Any]) -> float:
    """Return half a unit in the last place of numbers in [0.5, 1); of float32 for wider types, being their source."""
    finfo: Any = ml_dtypes.finfo
    return max(float(finfo(dtype).eps) / 4, 2.0**-25)


def recover(probability: float, precision: float) -> float:
    """Return the shortest decimal, or the simple fraction, that rounds to ``probability``: what somebody wrote down."""
    short, long = ([round(probability, digits) for digits in which] for which in (range(1, 4), range(4, 7)))
    fractions = [round(probability * n) / n for n in (3, 6, 7, 9, 11, 12)]
    for written in (*short, *fractions, *long):
        if abs(written - probability) <= precision and 0.0 < written < 1.0:
            return written
    # Tools that convert graphs to float16 convert back in places, and nothing but the numbers tells.
    for written in (*short[:2], *fractions):
        if 0.0 < written < 1.0 and any(abs(half - probability) <= precision for half in _halves(written)):
            return written
    return probability


def _halves(written: float) -> tuple[float, float]:
    """Return ``written`` and 1 - (1 - ``written``) with the number that a file holds rounded to float16."""
    return float(np.float16(written)), 1.0 - float(np.float16(1.0 - written))
