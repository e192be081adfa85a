"""The file that tells Olive of our passes, alone or with Olive's own in it. Olive is not imported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Final

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage import files

__all__ = ["package_config"]

_OURS: Final = Path(__file__).with_name("olive_package.json")


def package_config(output: str | Path | None = None) -> Path:
    """Return the path of what ``olive run --package-config`` takes, so that Olive finds this package's passes.

    Args:
        output: None for the file in this package, which names our passes and GraphSurgeries alone, since Olive reads it
            in place of its own; a path writes one with all of Olive's passes as well.

    Raises:
        ModelFileError: ``output`` is given and Olive is not installed, or the file cannot be written.
    """
    if output is None:
        return _OURS
    file = arguments.path(output, "output")
    found = importlib.util.find_spec("olive")
    if found is None or not found.submodule_search_locations:
        raise ModelFileError(f"{file}: Olive's own passes are not to be had; pip install olive-ai requests")
    both = json.loads(Path(found.submodule_search_locations[0], "olive_config.json").read_text())
    both["passes"] |= json.loads(_OURS.read_text())["passes"]
    with files.replacing(file) as pending:
        pending.stream.write(f"{json.dumps(both, indent=2)}\n".encode())
    return file
