"""Sum up draws of many batches. Rows are told apart by their ids alone: batches may be cut another way another time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo.result import MCResult, Statistics

__all__ = ["Part", "bar", "joined", "numbered", "part_of"]

Array = npt.NDArray[Any]
#: The arrays of some rows: "ids", "samples", "sums/OUTPUT/KEY" and "fixed/OUTPUT".
Part = dict[str, Array]


def numbered(
    batches: Iterable[Any], ids: Iterable[npt.ArrayLike] | None, rows_of: Callable[[Any], int]
) -> Iterator[tuple[Any, Array]]:
    """Yield each batch with the ids of its rows: those given, or 0, 1, 2, ... over all batches.

    Raises:
        SpecError: there are more or fewer batches than ids.
    """
    if ids is None:
        start = 0
        for batch in batches:
            rows = rows_of(batch)
            yield batch, np.arange(start, start + rows)
            start += rows
        return
    given = iter(ids)
    for batch in batches:
        numbers = next(given, None)
        if numbers is None:
            raise SpecError("there are more batches than ids; give the ids of each batch")
        yield batch, np.asarray(numbers)
    if next(given, None) is not None:
        raise SpecError("there are more ids than batches")


@contextmanager
def bar(shown: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that counts rows, with a bar of them on stderr where that is wanted."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rows", total=None)
        yield lambda rows: progress.advance(task, rows)


def part_of(result: MCResult) -> Part:
    """Return the arrays of a result that are kept: no draws."""
    part: Part = {"ids": result.ids, "samples": result.samples}
    for name, each in result.outputs.items():
        part |= {f"sums/{name}/{key}": array for key, array in each.sums.items()}
    return part | {f"fixed/{name}": array for name, array in result.fixed.items()}


def joined(parts: list[Part], ids: Array, like: dict[str, tuple[str, int]]) -> MCResult:
    """Return the result of rows ``ids``, in that order, from the parts that hold them.

    Args:
        parts: parts, whose rows may be others, too.
        ids: the rows.
        like: task and axis of each output.
    """
    held = np.concatenate([part["ids"] for part in parts])
    order = np.argsort(held, kind="stable")
    picked = order[np.searchsorted(held, ids, sorter=order)]
    arrays = {key: np.concatenate([part[key] for part in parts])[picked] for key in parts[0]}
    outputs = {}
    for name, (task, axis) in like.items():
        sums = {key.rpartition("/")[2]: a for key, a in arrays.items() if key.startswith(f"sums/{name}/")}
        outputs[name] = Statistics(name, task, axis, arrays["samples"], sums)
    fixed = {key.partition("/")[2]: array for key, array in arrays.items() if key.startswith("fixed/")}
    return MCResult(outputs, fixed, arrays["ids"])
