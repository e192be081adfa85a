"""Batches whose results are kept in a folder: a job that was interrupted computes no row again. It knows no engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop import io
from onnx_spatialdrop.distributed.batches import Batch, MonteCarloBatches
from onnx_spatialdrop.storage import external, results

__all__ = ["CheckpointedBatches", "model_hash"]

_PIECE: Final = 1 << 22


def model_hash(path: io.PathLike) -> str:
    """Return the SHA-256 of a model: of its file, and of the files of weights that it refers to.

    Raises:
        ModelFileError: a file cannot be read.
    """
    file = Path(path)
    others = sorted(external.data_files(io.load(file)))
    digest = hashlib.sha256()
    for each in (file, *others):
        with open(each, "rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


class CheckpointedBatches:
    """MonteCarloBatches that keeps what it computed, and computes no row whose result is there."""

    def __init__(self, folder: io.PathLike, batches: MonteCarloBatches) -> None:
        """Open the folder, or make it.

        Args:
            folder: a folder that every worker can read and write.
            batches: what computes.

        Raises:
            SpecError: the folder holds the results of another model, or of other settings.
            ModelFileError: the model or the folder cannot be read.
        """
        self._batches = batches
        self._done: dict[int, tuple[Path, int]] | None = None
        self._results = results.Results(Path(folder), {"model": model_hash(batches.model), **batches.settings})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_done": None}

    def __call__(self, batch: Mapping[str, npt.ArrayLike]) -> Batch:
        """Return what the batches' own call does; rows whose result is there are read."""
        done = self._known()
        ids = [int(number) for number in np.asarray(batch[self._batches.id])] if self._batches.id in batch else []
        if ids and all(number in done for number in ids):
            return self._stored([done[number] for number in ids])
        made = self._batches(batch)
        part = self._results.write(ids, made)
        done.update({number: (part, row) for row, number in enumerate(ids)})
        return made

    def _known(self) -> dict[int, tuple[Path, int]]:
        """Return where the result of each id is."""
        if self._done is None:
            self._done = {}
            for part in self._results.parts():
                for row, number in enumerate(results.read(part, self._batches.id)[self._batches.id].tolist()):
                    self._done[number] = (part, row)
        return self._done

    def _stored(self, places: list[tuple[Path, int]]) -> Batch:
        parts = {part: results.read(part) for part in {part for part, _ in places}}
        columns = parts[places[0][0]]
        return {name: np.stack([parts[part][name][row] for part, row in places]) for name in columns}
