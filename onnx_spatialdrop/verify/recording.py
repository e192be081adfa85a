"""What a framework did, in a file: exports can be verified where the framework is not installed, such as in CI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import ModelFileError, VerifyError
from onnx_spatialdrop.storage import arrays
from onnx_spatialdrop.verify.framework import Array, FrameworkStep, Layer

__all__ = ["Recording", "write"]

_FORMAT: Final = 1
_HEADER: Final = "recording"
_NONE: Final = "is no recording; record() writes one"
#: Steps are fed to models as int64.
_LARGEST_STEP: Final = 2**62

_T = TypeVar("_T")


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
            stored = _of(dict, arrays.read(self._path, _NONE))
            header = json.loads(str(stored.pop(_HEADER)))
            version = header.get("format")
            if version != _FORMAT:
                raise ModelFileError(f"{self._path}: is a recording of format {version}; known: {_FORMAT}")
            self._arrays = stored
            self.framework = f"{_of(str, header['framework'])} (recorded)"
            self.steps: int = _of(int, header["steps"])
            self.first_step: int = _of(int, header["first_step"])
            self.inputs = {name: stored[f"input{index}"] for index, name in enumerate(_all(str, header["inputs"]))}
            self._layers: list[str] = _all(str, header["layers"])
            self._scales = [_scales(entry) for entry in _all(dict, header["scales"])]
            self._check()
        except ModelFileError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"{self._path}: {_NONE}") from error

    def _check(self) -> None:
        """Raise TypeError or ValueError where steps, scales and arrays are not what write writes."""
        if not 1 <= self.steps == len(self._scales) or abs(self.first_step) > _LARGEST_STEP:
            raise ValueError
        for name, array in self._arrays.items():
            kind = name.rpartition("/")[2].rstrip("0123456789")
            wanted = {"mask": "b", "drawn": "b", "step": "i"}.get(kind, "biufV")
            if array.dtype.kind not in wanted or (kind == "step" and array.dtype != np.int64):
                raise TypeError

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


def _of(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError
    return value


def _all(kind: type[_T], values: object) -> list[_T]:
    return [_of(kind, value) for value in _of(list, values)]


def _scales(entry: dict[Any, Any]) -> dict[str, float]:
    return {_of(str, name): float(scale) for name, scale in entry.items()}


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
    stored: dict[str, Any] = {_HEADER: np.array(json.dumps(header, sort_keys=True))}
    stored |= {f"input{index}": np.asarray(value) for index, value in enumerate(inputs.values())}
    for number, step in enumerate(done):
        stored |= {f"step{number}/output{index}": np.asarray(value) for index, value in enumerate(step.outputs)}
        other = step.drawn is not None and any(not np.array_equal(step.drawn[n], m) for n, m in step.masks.items())
        drawn = step.drawn if step.drawn is not None and other else {}
        kinds = {"mask": step.masks, "input": step.inputs if layer_inputs else {}, "drawn": drawn}
        for kind, values in kinds.items():
            stored |= {f"step{number}/{kind}{layers.index(name)}": np.asarray(v) for name, v in values.items()}
        if step.step is not None:
            stored[f"step{number}/step"] = np.asarray(step.step)
    arrays.write(path, stored)
    return Path(path)
