"""Monte Carlo dropout on Ray Data: the class for its map_batches, with defaults that suit sessions. Ray is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.distributed.batches import MonteCarloBatches
from onnx_spatialdrop.distributed.checkpoint import CheckpointedBatches

__all__ = ["monte_carlo_dataset"]

#: Rows of a batch, and the bytes of inputs that they may have together, as the model takes them. A batch costs Ray some
#: 5 ms, a lost worker loses at most one, and a checkpoint has a file for each.
_BATCH: Final = 1024
_BYTES: Final = 64 << 20
#: Rows of a batch where the model leaves the size of a row open.
_OPEN: Final = 256


class _Worker:
    """What an actor holds: Ray makes it where the actor is."""

    def __init__(self, batches: MonteCarloBatches, checkpoint: str | None) -> None:
        self._run = batches if checkpoint is None else CheckpointedBatches(checkpoint, batches)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self._run(batch)


def monte_carlo_dataset(
    dataset: Any,
    model: io.PathLike,
    *,
    inputs: str | Mapping[str, str],
    id: str = "id",  # noqa: A002 - what the column is called everywhere
    statistics: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    samples: int = 31,
    actors: int | tuple[int, int] = (1, 8),
    cpus: int = 1,
    batch_size: int | None = None,
    checkpoint: io.PathLike | None = None,
    **options: Any,
) -> Any:
    """Return a ray.data.Dataset with the statistics of Monte Carlo dropout for each row of ``dataset``.

    Nothing runs before the result is read. Rows come in any order; their ids say which they are. The numbers are the
    same for any number of actors, any batch size and any blocks, and after workers were lost.

    Args:
        dataset: a ray.data.Dataset with a column of ids and one or more of inputs.
        model: the path of a model that every node can read, and the caller, who looks how large a row is; that is left
            out where ``batch_size`` is given.
        inputs: the column with the input; or {column: input of the model}.
        id: the column with the ids: integers of 0 or more, each once.
        statistics: columns of the result; see MonteCarloBatches.
        keep: columns that are handed through.
        samples: draws a row.
        actors: sessions, or (fewest, most); Ray starts as many as it has CPUs and work for.
        cpus: CPUs of an actor, and threads of its session.
        batch_size: rows that an actor takes at once; by default up to 1,024, fewer where inputs are large.
        checkpoint: a folder that every node can read and write. Rows whose results are in it are not computed again, so
            that a job goes on after its driver died. It refuses the results of another model or of other settings.
        options: further arguments of MonteCarloBatches and of MCDropout.

    Raises:
        TypeError, SpecError: an argument of another type, or out of range; a checkpoint of another job.
        ModelFileError: the model cannot be read.
    """
    cpus = arguments.integer(cpus, "cpus", 1)
    rows = _rows(model) if batch_size is None else arguments.integer(batch_size, "batch_size", 1)
    batches = MonteCarloBatches(
        model, inputs=inputs, id=id, statistics=statistics, keep=keep, samples=samples, threads=cpus, **options
    )
    folder = None if checkpoint is None else str(arguments.path(checkpoint, "checkpoint"))
    if folder is not None:
        CheckpointedBatches(folder, batches)  # refuses another job's folder here, and not in every actor
    # Blocks of a batch each: with fewer blocks than actors, actors stand idle.
    return dataset.repartition(target_num_rows_per_block=rows).map_batches(
        _Worker,
        fn_constructor_kwargs={"batches": batches, "checkpoint": folder},
        batch_size=rows,
        batch_format="numpy",
        concurrency=actors,
        num_cpus=cpus,
    )


def _rows(model: io.PathLike) -> int:
    """Return how many rows a batch has, by the sizes of the model's inputs."""
    row = 0
    for value in io.load(model).graph.inputs:
        if value.const_value is not None or value.dtype is None:
            continue
        sizes = [] if value.shape is None else [size for size in value.shape[1:] if isinstance(size, int)]
        if value.shape is None or len(sizes) != len(value.shape) - 1:
            return _OPEN
        row += math.ceil(math.prod(sizes) * value.dtype.itemsize)
    return max(1, min(_BATCH, _BYTES // max(1, row)))
