"""Functions of one uniform number, and whether they take two values: floor(10 u) >= 3, log u < -0.2. Pure.

A function is an expression: a tuple of an operator and its operands, which are expressions or numbers. It is looked at
by its values, on a grid and by bisection between its points; so it does not matter how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from onnx_spatialdrop.graph.ops import OPERATORS

__all__ = ["Expression", "Pieces", "line", "pick", "pieces"]

#: ("line", start, slope), ("pick", cuts, first, second), or an operator of graph/ops.py, its operands and parameters.
Expression = tuple[Any, ...]

#: How finely functions are looked at: what happens on less than one of this many parts of [0, 1) is not seen.
_GRID: Final = 1 << 15
#: Functions with more cuts than these are no masks.
_MOST_CUTS: Final = 1 << 12


@dataclass(frozen=True)
class Pieces:
    """A function of two values.

    Attributes:
        cuts: where it changes from one value to the other, ascending; none where it is constant.
        first: its value below the first cut.
        second: its other value.
    """

    cuts: tuple[float, ...]
    first: float
    second: float

    @property
    def share(self) -> float:
        """The part of [0, 1) where the value is the first one."""
        edges = np.array([0.0, *self.cuts, 1.0])
        return float(np.diff(edges)[::2].sum())


def line(start: float, slope: float) -> Expression:
    """Return the function start + slope * u."""
    return ("line", start, slope)


def pick(cuts: tuple[float, ...], first: Any, second: Any) -> Expression:
    """Return the function that is ``first`` below the first cut, then ``second``, and so on in turn."""
    return ("pick", cuts, float(first), float(second))


@lru_cache(maxsize=4096)
def pieces(expression: Expression) -> Pieces | None:
    """Return the two values of a function and where they change; None where it has more."""
    ends: np.ndarray = np.array([2.0**-40, *((np.arange(_GRID) + 0.5) / _GRID), 1.0 - 2.0**-40])
    values = _values(expression, ends)
    if np.isnan(values).any():
        return None
    changes = np.flatnonzero(values[1:] != values[:-1])
    if len(changes) > _MOST_CUTS or len(np.unique(values[: 1 << 8])) > 2 or len(np.unique(values)) > 2:
        return None
    if not len(changes):
        return Pieces((), float(values[0]), float(values[0]))
    low, high = ends[changes], ends[changes + 1]
    for _ in range(48):
        middle = (low + high) / 2
        below = _values(expression, middle) == values[changes]
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return Pieces(tuple(high.tolist()), float(values[0]), float(values[changes[0] + 1]))


def _values(expression: Any, u: np.ndarray) -> np.ndarray:
    if not isinstance(expression, tuple):
        return np.full(u.shape, float(expression))
    name, *operands = expression
    if name == "line":
        return np.asarray(operands[0] + operands[1] * u)
    if name == "pick":
        cuts, first, second = operands
        return np.asarray(np.where(np.searchsorted(np.array(cuts), u, side="right") % 2, second, first))
    function = np.trunc if name == "Truncate" else OPERATORS[name].function
    assert function is not None
    with np.errstate(all="ignore"):
        return np.asarray(function(*(_values(operand, u) for operand in operands)), np.float64)
