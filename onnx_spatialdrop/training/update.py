"""Put trained weights into an inference model. It changes numbers and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import TrainerError
from onnx_spatialdrop.storage import arrays as npz
from onnx_spatialdrop.training import trainer

__all__ = ["update"]


@io.same_kind
def update(inference_model: io.Source, weights: Any, output: io.PathLike | None = None) -> io.Result:
    """Return the model with trained weights in the place of its own.

    Args:
        inference_model: a path, an onnx.ModelProto or an ir.Model, with or without dropout; it is not changed.
        weights: the new weights by their initializers' names: a mapping to arrays or tensors, the path of an .npz file
            of such, an onnxruntime.training.api.CheckpointState, or the path of a checkpoint that was saved with it.
            Initializers that are not named stay as they are.
        output: a file to write; then its path is returned.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        TrainerError: a name that the model does not have, a shape or type that differs, a weight that is not finite;
            or a checkpoint where onnxruntime-training is not installed.
        ModelFileError: a file that cannot be read or written.
    """
    io.checked_source(inference_model, "inference_model")
    arrays = _arrays(weights)

    def put(model: ir.Model) -> None:
        for name, array in arrays.items():
            _check(model, name, array)
        for name, array in arrays.items():
            model.graph.initializers[name].const_value = ir.tensor(array, name=name)

    return io.rewrite(inference_model, output, put)[0]


def _check(model: ir.Model, name: str, array: npt.NDArray[Any]) -> None:
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None:
        raise TrainerError(
            f"weight {name!r} has no initializer of that name in the model; "
            f"it has {', '.join(map(repr, model.graph.initializers))}"
        )
    before = value.const_value
    shape = tuple(before.shape.numpy())
    if array.shape != shape or array.dtype != before.dtype.numpy():
        raise TrainerError(
            f"weight {name!r} is {array.dtype}{list(array.shape)} and the model's is "
            f"{before.dtype.numpy()}{list(shape)}; give one of the same type and shape"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TrainerError(f"weight {name!r} holds NaN or infinity; training diverged, so take an earlier checkpoint")


def _arrays(weights: Any) -> dict[str, npt.NDArray[Any]]:
    if isinstance(weights, Mapping):
        return {arguments.string(name, "a name in weights"): _array(name, value) for name, value in weights.items()}
    if isinstance(weights, (str, os.PathLike)):
        path = arguments.path(weights, "weights")
        if path.suffix == ".npz":
            return _stored(path)
        trainer.require()
        from onnxruntime.training.api import CheckpointState

        weights = CheckpointState.load_checkpoint(str(path))
    if hasattr(weights, "parameters"):
        return {name: np.array(parameter.data) for name, parameter in weights.parameters}
    kind = type(weights).__name__
    raise TypeError(f"weights must be a mapping, a CheckpointState or a path of either, not {kind}")


def _stored(path: Path) -> dict[str, npt.NDArray[Any]]:
    stored = npz.read(path, "holds no weights; numpy.savez(file, **{name: array}) writes them")
    if not isinstance(stored, dict):
        raise TrainerError(f"{path}: holds one array without a name; numpy.savez(file, **{{name: array}}) writes names")
    return stored


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):  # a PyTorch tensor
        value = value.detach().cpu().numpy()
    try:
        return np.array(value)  # a copy: trainers go on writing into theirs
    except (ValueError, TypeError) as error:
        raise TrainerError(f"weights[{name!r}] is no array: {io.first_line(error)}") from error
