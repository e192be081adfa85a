"""Arrays that people name on the command line: the inputs of a model, and labels."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.storage import arrays
from onnx_spatialdrop.storage.arrays import Array

__all__ = ["inputs", "read"]


def read(file: str) -> Array | dict[str, Array]:
    """Return the array of an .npy file, or the arrays of an .npz file by name."""
    return arrays.read(file, "holds no arrays; write it with numpy.savez(file, name=array)")


def inputs(file: str, names: Sequence[str]) -> dict[str, Array]:
    """Return the arrays of a file that are inputs of a model, by name; that of an .npy file is the first input.

    Args:
        file: the file.
        names: the model's inputs, in its order.

    Raises:
        SpecError: the file holds none of them.
    """
    found = read(file)
    named = found if isinstance(found, dict) else {names[0]: found}
    held = {name: array for name, array in named.items() if name in names}
    if not held:
        raise SpecError(f"{file}: holds no array of the model's inputs, {', '.join(names)}")
    return held
