"""What a command line names as data, as a dataset of Ray: a Parquet file, a folder of .npz files or of images.

Rows are read on the workers; here are only names, and how many rows a file has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from onnx_spatialdrop.errors import ModelFileError, SpecError
from onnx_spatialdrop.storage import arrays

__all__ = ["Images", "dataset_of"]

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Images:
    """How images are read for a model.

    Attributes:
        input: the model's input.
        sizes: its sizes without the batch, -1 where the model leaves one open.
        white: what white is there: 1 or 255.
    """

    input: str
    sizes: tuple[int, ...]
    white: int

    def read(self, file: str) -> np.ndarray:
        """Return an image as float32, channels where the model has them.

        Raises:
            SpecError: the model takes no images, or this one has another size.
            ModelFileError: it cannot be read.
        """
        from PIL import Image, UnidentifiedImageError

        if len(self.sizes) != 3 or not {self.sizes[0], self.sizes[-1]} & {1, 3}:
            raise SpecError(
                f"input {self.input!r} has rows of shape {self.sizes}, which are no images of 1 or 3 channels"
            )
        first = self.sizes[0] in (1, 3)
        channels, wanted = (self.sizes[0], self.sizes[1:]) if first else (self.sizes[2], self.sizes[:2])
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32)
        except (OSError, UnidentifiedImageError) as error:
            raise ModelFileError(f"{file}: cannot be read as an image") from error
        if any(size not in (-1, given) for size, given in zip(wanted, pixels.shape, strict=False)):
            raise SpecError(
                f"{file}: is {pixels.shape[0]} x {pixels.shape[1]}; the model takes {wanted[0]} x {wanted[1]}"
            )
        pixels = pixels.reshape(*pixels.shape[:2], channels) * np.float32(self.white / 255)
        return pixels.transpose(2, 0, 1) if first else pixels


def dataset_of(place: Path, inputs: Sequence[str], images: Images) -> Any:
    """Return a ray.data.Dataset with columns ``id`` and the inputs.

    A Parquet file, or a folder of such, has a column ``id``. In other folders, ids are those of an array ``id`` in each
    .npz file, or rows and images are counted in the order of the files' names.

    Raises:
        SpecError, ModelFileError: what is there is none of these.
    """
    import ray

    if place.suffix == ".parquet" or any(place.glob("*.parquet")):
        found = ray.data.read_parquet(str(place))
        missing = [name for name in ("id", *inputs) if name not in found.schema().names]
        if missing:
            raise SpecError(f"{place}: has no column {missing[0]!r}; it has {', '.join(found.schema().names)}")
        return found.select_columns(["id", *inputs])
    if not place.is_dir():
        raise SpecError(f"{place}: is neither a folder nor a Parquet file, which is what --ray takes")
    files = sorted(file for file in place.rglob("*") if file.is_file())
    packed = [file for file in files if file.suffix == ".npz"]
    if packed:
        return ray.data.from_items(_numbered(packed)).map_batches(
            _Packed(tuple(inputs)), batch_size=1, batch_format="numpy"
        )
    pictures = [str(file) for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        raise SpecError(f"{place}: holds neither .npz files nor images ({', '.join(IMAGE_SUFFIXES)})")
    rows = ray.data.from_items([{"id": number, "file": file} for number, file in enumerate(pictures)])
    return rows.map(lambda row: {"id": row["id"], images.input: images.read(row["file"])})


def _numbered(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return each file with the number of its first row."""
    found, first = [], 0
    for file in files:
        found.append({"file": str(file), "first": first})
        first += _row_count(file)
    return found


def _row_count(file: Path) -> int:
    """Return how many rows a file has, by the header of its first array that is no list of ids."""
    try:
        with np.load(file, allow_pickle=False) as held:
            name = next(name for name in held.files if name != "id")
            with held.zip.open(f"{name}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                return int(header(stream)[0][0])
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise ModelFileError(f"{file}: holds no arrays of rows") from error


class _Packed:
    """Reads .npz files, one a batch."""

    def __init__(self, inputs: tuple[str, ...]) -> None:
        self._inputs = inputs

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        file, first = str(batch["file"][0]), int(batch["first"][0])
        held = arrays.read(file, "holds no arrays; write it with numpy.savez(file, name=array)")
        missing = [name for name in self._inputs if not isinstance(held, dict) or name not in held]
        if missing or not isinstance(held, dict):
            raise SpecError(f"{file}: has no array {missing[0]!r}")
        rows = {name: held[name] for name in self._inputs}
        counts = {len(array) for array in rows.values()}
        if len(counts) > 1:
            raise SpecError(f"{file}: its arrays have {' and '.join(map(str, sorted(counts)))} rows")
        return {"id": held["id"] if "id" in held else first + np.arange(counts.pop()), **rows}
