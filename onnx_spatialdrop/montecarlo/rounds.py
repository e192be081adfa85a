"""Draw in chunks, and stop rows that are sure enough: the loops around the sessions that draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["Rows", "Sums", "chunks", "run_rounds", "standard_error"]

Array = npt.NDArray[Any]
#: What is kept of the draws, by output and key.
Sums = dict[str, dict[str, Array]]


@dataclass(frozen=True)
class Rows:
    """The values that draws read, for some rows.

    Attributes:
        boundary: boundary values by name.
        places: the axis and block of those that have rows.
        sizes: of those that are sizes, which entries are multiples of the number of rows.
        first: the first step of each row, int64 [N].
    """

    boundary: Mapping[str, Array]
    places: Mapping[str, tuple[int, int]]
    sizes: Mapping[str, Array]
    first: Array

    def take(self, rows: Array) -> Rows:
        """Return the values of some rows, by their positions."""
        picked = dict(self.boundary)
        for name, (axis, block) in self.places.items():
            within = (rows[:, None] * block + np.arange(block)).reshape(-1)
            picked[name] = np.take(self.boundary[name], within, axis=axis)
        for name, multiples in self.sizes.items():
            each = self.boundary[name] // len(self.first) * len(rows)
            picked[name] = np.where(multiples, each, self.boundary[name]).astype(each.dtype)
        return Rows(picked, self.places, self.sizes, self.first[rows])

    def tiled(self, count: int) -> Mapping[str, Array]:
        """Return the values of ``count`` draws laid behind each other."""
        if count == 1:
            return self.boundary
        return self.take(np.tile(np.arange(len(self.first)), count)).boundary

    def steps(self, start: int, count: int) -> Array:
        """Return the steps of ``count`` draws laid behind each other, the first of them draw ``start``, int64."""
        return (np.arange(start, start + count)[:, None] + self.first).reshape(-1)


def standard_error(target: Target, sums: Mapping[str, Array], done: int) -> Array:
    """Return the largest standard error of a row's mean, [N].

    Of classes, the error of the likeliest one, with a pseudo-draw half at 0 and half at 1: the plain variance of the
    first draws stops rows too early whose first draws agree. With balanced draws (strata) it is an upper bound.
    """
    mean, squares = sums["mean"].astype(np.float64), sums["squares"].astype(np.float64)
    if target.kind == "classes":
        if target.axis >= 0:
            best = np.expand_dims(mean.argmax(target.axis), target.axis)
            mean, squares = (np.take_along_axis(each, best, target.axis) for each in (mean, squares))
        variance = (squares + 0.5 * mean**2 + 0.5 * (1 - mean) ** 2) / done
    else:
        variance = squares / max(1, done - 1)
    return np.asarray(np.sqrt(variance / done).reshape(len(mean), -1).max(axis=1))


def chunks(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (first draw, number of draws) of chunks of about equal size, at most ``size``."""
    count = -(-(end - start) // size)
    for index in range(count):
        a, b = (start + (end - start) * k // count for k in (index, index + 1))
        yield a, b - a


def run_rounds(
    draw: Callable[[Rows, Sums, int, int], Sums],
    rows: Rows,
    targets: Sequence[Target],
    samples: int,
    tolerance: float | None,
    block: int,
    apart: bool,
) -> tuple[Sums, Array]:
    """Draw ``samples`` times, fewer for rows whose mean is sure enough.

    Args:
        draw: adds draws to sums: rows, the sums so far, the first draw, the end.
        rows: what to draw for.
        targets: the outputs.
        samples: how often at most.
        tolerance: rows stop where the standard error is below it; None: no row stops.
        block: rows stop at multiples of this many draws only.
        apart: whether rows may leave the batch; else they stop together.

    Returns:
        The sums, and how many draws each row had, int64 [N].
    """
    total = len(rows.first)
    active, start = np.arange(total), 0
    sums: Sums = {target.value.name or "": {} for target in targets}
    final: Sums = {name: {} for name in sums}
    counts = np.full(total, samples, np.int64)
    for end in [samples] if tolerance is None else [*range(block, samples, block), samples]:
        sums = draw(rows, sums, start, end)
        start = end
        if tolerance is None or end == samples:
            break
        sure = np.all([standard_error(t, sums[t.value.name or ""], end) < tolerance for t in targets], axis=0)
        sure = sure if apart else np.full_like(sure, sure.all())
        if not sure.any():
            continue
        _settle(final, sums, active[sure], sure, total)
        counts[active[sure]] = end
        kept = np.flatnonzero(~sure)
        active, rows = active[kept], rows.take(kept)
        sums = {name: {key: array[kept] for key, array in each.items()} for name, each in sums.items()}
        if not len(active):
            return final, counts
    _settle(final, sums, active, np.full(len(active), True), total)
    return final, counts


def _settle(final: Sums, sums: Sums, rows: Array, chosen: Array, total: int) -> None:
    """Write the sums of rows that have stopped to their places."""
    for name, each in sums.items():
        for key, array in each.items():
            if key not in final[name]:
                final[name][key] = np.zeros((total, *array.shape[1:]), array.dtype)
            final[name][key][rows] = array[chosen]
