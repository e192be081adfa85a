"""Arrays in .npy and .npz files, which anybody may have written: no pickles, and no more than fits into memory."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage import files

__all__ = ["Array", "read", "write"]

Array = npt.NDArray[Any]
#: What a file may unpack to, in bytes: as much as a model may hold. A small .npz can claim, and hold, far more.
LARGEST: Final = files.LARGEST
_KINDS: Final = "biufU"
#: What NumPy makes of ml_dtypes.bfloat16 when it writes it.
_BFLOAT16_STORED: Final = np.dtype("V2")


def read(path: str | os.PathLike[str], what: str) -> Array | dict[str, Array]:
    """Return the array of an .npy file, or the arrays of an .npz file by name.

    Args:
        path: the file; it is read whole.
        what: what the error calls a file that holds something else: "is no recording; record() writes one".

    Raises:
        ModelFileError: it cannot be read, holds something else than numbers, truth values and text, or is too large.
    """
    file = Path(path)
    content = files.read(file)
    try:
        if zipfile.is_zipfile(BytesIO(content)):
            with zipfile.ZipFile(BytesIO(content)) as packed:
                size = sum(entry.file_size for entry in packed.infolist())
            if size > LARGEST:
                raise ModelFileError(f"{file}: unpacks to {size} bytes; at most {LARGEST} are read")
        loaded = np.load(BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _checked(loaded)
        with loaded:
            return {name: _checked(loaded[name]) for name in loaded.files}
    except ModelFileError:
        raise
    except MemoryError as error:
        raise ModelFileError(f"{file}: needs more memory than there is") from error
    except Exception as error:  # zip, zlib, struct, tokenize and NumPy have one of their own each
        raise ModelFileError(f"{file}: {what}") from error


def _checked(found: Any) -> Array:
    if not isinstance(found, np.ndarray):
        raise TypeError  # what is no .npy comes out of an .npz as bytes
    array: Array = found.view(ml_dtypes.bfloat16) if found.dtype == _BFLOAT16_STORED else found
    if array is found and array.dtype.kind not in _KINDS:
        raise TypeError
    return array


def write(path: str | os.PathLike[str], named: Mapping[str, Any]) -> None:
    """Write arrays by name into an .npz file, whole or not at all.

    Raises:
        ModelFileError: the file cannot be written.
    """
    with files.replacing(Path(path)) as out:
        np.savez_compressed(out.stream, **named)
