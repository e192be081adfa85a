"""What a framework did, in a file: exports can be verified where the framework is not installed, such as in CI."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from onnx_spatialdrop import files, io
from onnx_spatialdrop.errors import ModelFileError, VerifyError
from onnx_spatialdrop.verify.framework import Array, FrameworkStep, Layer

__all__ = ["Recording", "write"]

_FORMAT: Final = 1
_HEADER: Final = "recording"


class Recording:
    """A recording, as a FrameworkRun that says again what the framework did.

    Attributes:
        framework: what was recorded, and its version.
        inputs: the inputs of every step.
        steps: how many steps it holds.
        first_step: the number of the first one.

    Raises:
        ModelFileError: the file cannot be read, or is no recording.
    """

    def __init__(self, path: io.PathLike) -> None:
        self._path = Path(path)
        try:
            with np.load(BytesIO(files.read(self._path)), allow_pickle=False) as stored:
                self._arrays = {name: stored[name] for name in stored.files}
            header = json.loads(str(self._arrays.pop(_HEADER)))
        except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise ModelFileError(f"{self._path}: is no recording; record() writes one") from error
        if header.get("format") != _FORMAT:
            raise ModelFileError(f"{self._path}: is a recording of format {header.get('format')}; known: {_FORMAT}")
        self.framework = f"{header['framework']} (recorded)"
        self.steps: int = header["steps"]
        self.first_step: int = header["first_step"]
        self.inputs = {name: self._arrays[f"input{index}"] for index, name in enumerate(header["inputs"])}
        self._layers: list[str] = header["layers"]
        self._scales: list[dict[str, float]] = header["scales"]

    def begin(self, layers: Sequence[Layer]) -> None:
        """See FrameworkRun; whether the layers match is found in the first step."""

    def run(self, inputs: Mapping[str, Array], step: int) -> FrameworkStep:
        """See FrameworkRun.

        Raises:
            VerifyError: the step or the inputs are not those of the recording.
        """
        index = step - self.first_step
        if not 0 <= index < self.steps:
            last = self.first_step + self.steps - 1
            raise VerifyError(f"{self._path}: holds steps {self.first_step} to {last}, not step {step}")
        known = self.inputs
        if any(name not in known or not np.array_equal(value, known[name]) for name, value in inputs.items()):
            raise VerifyError(f"{self._path}: was recorded with other inputs; leave the inputs out to use its own")
        outputs: list[Array] = []
        while f"step{index}/output{len(outputs)}" in self._arrays:
            outputs.append(self._arrays[f"step{index}/output{len(outputs)}"])
        return FrameworkStep(
            tuple(outputs),
            self._of_layers(index, "mask"),
            self._scales[index],
            self._of_layers(index, "input"),
            self._of_layers(index, "drawn") or None,
            self._arrays.get(f"step{index}/step"),
        )

    def _of_layers(self, index: int, kind: str) -> dict[str, Array]:
        names = {name: f"step{index}/{kind}{place}" for place, name in enumerate(self._layers)}
        return {name: self._arrays[key] for name, key in names.items() if key in self._arrays}


def write(
    path: io.PathLike,
    framework: str,
    inputs: Mapping[str, Array],
    done: Sequence[FrameworkStep],
    first_step: int,
    layer_inputs: bool,
) -> Path:
    """Write a recording, whole or not at all; equal steps give equal bytes.

    Args:
        path: the .npz file.
        framework: what was run, and its version.
        inputs: the inputs of every step.
        done: what each step did.
        first_step: the number of the first one.
        layer_inputs: whether to keep what each layer was called with.

    Raises:
        ModelFileError: the file cannot be written.
    """
    layers = list(done[0].masks)
    header: dict[str, Any] = {
        "format": _FORMAT,
        "framework": framework,
        "steps": len(done),
        "first_step": first_step,
        "inputs": list(inputs),
        "layers": layers,
        "scales": [dict(step.scales) for step in done],
    }
    arrays: dict[str, Any] = {_HEADER: np.array(json.dumps(header, sort_keys=True))}
    arrays |= {f"input{index}": np.asarray(value) for index, value in enumerate(inputs.values())}
    for number, step in enumerate(done):
        arrays |= {f"step{number}/output{index}": np.asarray(value) for index, value in enumerate(step.outputs)}
        other = step.drawn is not None and any(not np.array_equal(step.drawn[n], m) for n, m in step.masks.items())
        drawn = step.drawn if step.drawn is not None and other else {}
        kinds = {"mask": step.masks, "input": step.inputs if layer_inputs else {}, "drawn": drawn}
        for kind, values in kinds.items():
            arrays |= {f"step{number}/{kind}{layers.index(name)}": np.asarray(v) for name, v in values.items()}
        if step.step is not None:
            arrays[f"step{number}/step"] = np.asarray(step.step)
    with files.replacing(Path(path)) as out:
        np.savez_compressed(out.stream, **arrays)
    return Path(path)
