"""Draw in chunks and stop rows that are sure enough: the loop around the sessions of a chunk of draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["Rows", "Sums", "run_rounds", "standard_error"]

Array = npt.NDArray[Any]
#: What is kept of the draws, by output and key.
Sums = dict[str, dict[str, Array]]
#: Draws ``count`` times from draw ``start`` on, given boundary values, first steps and sums.
Draw = Callable[[Mapping[str, Array], Array, Sums, int, int], tuple[Sums, dict[str, Array]]]


@dataclass(frozen=True)
class Rows:
    """The values that a chunk of draws reads, for some rows.

    Attributes:
        boundary: boundary values by name.
        places: the axis and block of those that have rows.
        first: the first step of each row, int64 [N].
    """

    boundary: Mapping[str, Array]
    places: Mapping[str, tuple[int, int]]
    first: Array

    def take(self, rows: Array) -> Rows:
        """Return the values of some rows, by their positions."""
        picked = dict(self.boundary)
        for name, (axis, block) in self.places.items():
            within = (rows[:, None] * block + np.arange(block)).reshape(-1)
            picked[name] = np.take(self.boundary[name], within, axis=axis)
        return Rows(picked, self.places, self.first[rows])


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
    draw: Draw,
    rows: Rows,
    targets: Sequence[Target],
    samples: int,
    size: Callable[[int], int],
    tolerance: float | None,
    block: int,
    apart: bool,
) -> tuple[Sums, Array, dict[str, Array]]:
    """Draw ``samples`` times, fewer for rows whose mean is sure enough.

    Args:
        draw: draws a chunk.
        rows: what to draw for.
        targets: the outputs.
        samples: how often at most.
        size: how many draws run at once, for a number of rows.
        tolerance: rows stop where the standard error is below it; None: no row stops.
        block: rows stop at multiples of this many draws only.
        apart: whether rows may leave the batch; else they stop together.

    Returns:
        The sums, how many draws each row had (int64 [N]), and the draws [T, N, ...] by output where no row stops.
    """
    total = len(rows.first)
    active = np.arange(total)
    sums: Sums = {target.value.name or "": {} for target in targets}
    final: Sums = {name: {} for name in sums}
    counts = np.full(total, samples, np.int64)
    drawn: dict[str, list[Array]] = {name: [] for name in sums}
    edges = [samples] if tolerance is None else [*range(block, samples, block), samples]
    start = 0
    for end in edges:
        for at, count in chunks(start, end, max(1, size(len(active)))):
            sums, draws = draw(rows.boundary, rows.first, sums, at, count)
            for name, array in draws.items():
                drawn[name].append(array)
        start = end
        if tolerance is None or end == samples:
            continue
        sure = np.all([standard_error(t, sums[t.value.name or ""], end) < tolerance for t in targets], axis=0)
        sure = sure if apart else np.full_like(sure, sure.all())
        if not sure.any():
            continue
        _settle(final, sums, active[sure], sure, total)
        counts[active[sure]] = end
        kept = np.flatnonzero(~sure)
        active = active[kept]
        sums = {name: {key: array[kept] for key, array in each.items()} for name, each in sums.items()}
        if not len(active):
            break
        rows = rows.take(kept)
    if len(active):
        _settle(final, sums, active, np.full(len(active), True), total)
    return final, counts, {name: np.concatenate(parts) for name, parts in drawn.items() if parts}


def _settle(final: Sums, sums: Sums, rows: Array, chosen: Array, total: int) -> None:
    """Write the sums of rows that have stopped to their places."""
    for name, each in sums.items():
        for key, array in each.items():
            if key not in final[name]:
                final[name][key] = np.zeros((total, *array.shape[1:]), array.dtype)
            final[name][key][rows] = array[chosen]
