"""Results of rows by id, in a folder: what is done is there, so that work that was stopped goes on. It knows no model.

The folder holds job.json, which says what the numbers depend on, and a file of arrays for each batch that was
computed. Files are written whole or not at all, so that who writes them may be killed at any time.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import ModelFileError, SpecError
from onnx_spatialdrop.storage import files

__all__ = ["Results", "read"]

Array = npt.NDArray[Any]
_JOB: Final = "job.json"


class Results:
    """The folder of one job, which is made where it is missing.

    Args:
        folder: the folder.
        job: what the numbers depend on, in types that JSON has.

    Raises:
        SpecError: the folder holds the results of another job.
        ModelFileError: it cannot be read or written.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any]) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelFileError(f"{folder}: cannot be written: {error.strerror}") from error
        place, new = folder / _JOB, json.dumps(job, indent=2, sort_keys=True)
        if place.exists():
            self._refuse_other(json.loads(files.read(place)), json.loads(new))
        else:
            with files.replacing(place) as out:
                out.stream.write(new.encode())

    def _refuse_other(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        differ = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if differ:
            said = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in differ)
            raise SpecError(f"{self._folder} holds the results of another job: {said}; give another folder")

    def write(self, ids: npt.ArrayLike, arrays: Mapping[str, Array]) -> Path:
        """Write the arrays of rows ``ids``; return the file."""
        name = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest()[:24]
        part = self._folder / f"{name}.npz"
        with files.replacing(part) as out:
            np.savez(out.stream, **arrays)  # type: ignore[arg-type]
        return part

    def parts(self) -> Iterator[Path]:
        """Yield the files that were written."""
        yield from sorted(self._folder.glob("*.npz"))


def read(part: Path, *names: str) -> dict[str, Array]:
    """Return the arrays of a file of results; all of them where none are named.

    Raises:
        ModelFileError: it is no such file.
    """
    try:
        with np.load(part, allow_pickle=False) as stored:
            return {name: stored[name] for name in names or stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{part}: is no file of results; remove it, and its rows are computed again") from error
