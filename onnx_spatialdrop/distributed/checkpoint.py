"""Results of rows by id, in a folder: a job that was interrupted computes no row again. It knows no engine.

The folder holds job.json, which says what the numbers depend on, and a file of arrays for each batch that was
computed. Files are written whole or not at all, so that workers may be killed at any time.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop import io
from onnx_spatialdrop.distributed.batches import Batch, MonteCarloBatches
from onnx_spatialdrop.errors import ModelFileError, SpecError
from onnx_spatialdrop.storage import external, files

__all__ = ["CheckpointedBatches", "model_hash"]

_JOB: Final = "job.json"
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
        self._folder, self._batches = Path(folder), batches
        self._done: dict[int, tuple[Path, int]] | None = None
        self._folder.mkdir(parents=True, exist_ok=True)
        job = json.dumps({"model": model_hash(batches.model), **batches.settings}, indent=2, sort_keys=True)
        place = self._folder / _JOB
        if place.exists():
            _refuse_other(place, json.loads(files.read(place)), json.loads(job))
        else:
            _write(place, job.encode())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_done": None}

    def __call__(self, batch: Mapping[str, npt.ArrayLike]) -> Batch:
        """Return what the batches' own call does; rows whose result is there are read."""
        done = self._known()
        ids = [int(number) for number in np.asarray(batch[self._batches.id])] if self._batches.id in batch else []
        if ids and all(number in done for number in ids):
            return self._stored([done[number] for number in ids])
        made = self._batches(batch)
        content = BytesIO()
        np.savez(content, **made)  # type: ignore[arg-type]
        name = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest()[:24]
        part = self._folder / f"{name}.npz"
        _write(part, content.getvalue())
        done.update({number: (part, row) for row, number in enumerate(ids)})
        return made

    def _known(self) -> dict[int, tuple[Path, int]]:
        """Return where the result of each id is."""
        if self._done is None:
            self._done = {}
            for part in sorted(self._folder.glob("*.npz")):
                for row, number in enumerate(_read(part, self._batches.id)[self._batches.id].tolist()):
                    self._done[number] = (part, row)
        return self._done

    def _stored(self, places: list[tuple[Path, int]]) -> Batch:
        parts = {part: _read(part) for part in {part for part, _ in places}}
        columns = parts[places[0][0]]
        return {name: np.stack([parts[part][name][row] for part, row in places]) for name in columns}


def _refuse_other(place: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differ = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if differ:
        said = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in differ)
        raise SpecError(f"{place.parent} holds the results of another job: {said}; give another folder")


def _read(part: Path, *columns: str) -> Batch:
    """Return the columns of a file of results; all of them where none are named."""
    try:
        with np.load(part, allow_pickle=False) as stored:
            return {name: stored[name] for name in columns or stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{part}: is no file of results; remove it, and its rows are computed again") from error


def _write(file: Path, content: bytes) -> None:
    with files.replacing(file) as pending:
        pending.stream.write(content)
