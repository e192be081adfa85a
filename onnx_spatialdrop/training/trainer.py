"""Finds onnxruntime-training and calls it with what it needs; says why where it cannot be used.

It knows nothing of dropout.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import onnx

from onnx_spatialdrop.errors import TrainerError

__all__ = ["LOSSES", "OPTIMIZERS", "generate", "missing_reason", "require"]

#: Our names for the losses and optimizers that onnxruntime-training brings, and its own.
LOSSES: Final = {
    "cross_entropy": "CrossEntropyLoss",
    "mse": "MSELoss",
    "bce_with_logits": "BCEWithLogitsLoss",
    "l1": "L1Loss",
}
OPTIMIZERS: Final = {"adamw": "AdamW", "sgd": "SGD"}

_PACKAGE: Final = "onnxruntime-training-cpu"
_VERSION: Final = "1.19.2"
_LAST_PYTHON: Final = (3, 11)
_LAST_IR: Final = 10
_INSTALL: Final = (
    f"make an environment of Python 3.11 for training: 'pip install {_PACKAGE}=={_VERSION} torch onnx-ir ml_dtypes', "
    "then 'pip install --no-deps .' in this package's sources (with dependencies, onnxruntime would overwrite it)"
)


def missing_reason() -> str | None:
    """Return None if onnxruntime-training can be used here, else one line that says why not and what to do."""
    if sys.version_info[:2] > _LAST_PYTHON:
        return (
            f"{_PACKAGE} ended at {_VERSION}, whose wheels need Python 3.11 or older, "
            f"and this is Python {sys.version_info[0]}.{sys.version_info[1]}; {_INSTALL}"
        )
    try:
        importlib.import_module("onnxruntime.training.artifacts")
    except ImportError as error:
        installed = importlib.metadata.packages_distributions().get("onnxruntime", ())
        if _PACKAGE in installed:
            return f"{_PACKAGE} is installed but cannot be imported ({error}); {_INSTALL}"
        found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(installed))) or "nothing"
        return f"{_PACKAGE} is not installed (found: {found}); {_INSTALL}"
    return None


def require() -> Any:
    """Return the module onnxruntime.training.artifacts.

    Raises:
        TrainerError: it is not here, or this Python is too new for it.
    """
    reason = missing_reason()
    if reason is not None:
        raise TrainerError(reason)
    return importlib.import_module("onnxruntime.training.artifacts")


def generate(model: onnx.ModelProto, folder: Path, loss: Any, optimizer: Any, requires_grad: list[str]) -> None:
    """Write onnxruntime-training's four files for ``model`` into ``folder``.

    Raises:
        TrainerError: onnxruntime-training is not here, knows no such loss or optimizer, or cannot build a gradient.
    """
    artifacts = require()
    loss = _named(loss, LOSSES, artifacts.LossType, "loss")
    optimizer = _named(optimizer, OPTIMIZERS, artifacts.OptimType, "optimizer")
    with _ir_version(_LAST_IR):
        try:
            artifacts.generate_artifacts(
                model,
                requires_grad=requires_grad,
                loss=loss,
                optimizer=optimizer,
                artifact_directory=folder,
            )
        except (RuntimeError, ValueError, KeyError, onnx.checker.ValidationError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise TrainerError(
                f"onnxruntime-training cannot build the training graph: {lines[-1] if lines else repr(error)}; "
                "leave weights out of requires_grad that no gradient reaches, or train with PyTorch "
                "(onnx_spatialdrop.training.pytorch)"
            ) from error


def _named(given: Any, names: dict[str, str], kinds: Any, what: str) -> Any:
    if not isinstance(given, str):
        return given
    if given not in names:
        raise TrainerError(f"{what} is {given!r}; allowed: {', '.join(map(repr, names))}, or an onnxblock.Block")
    return kinds[names[given]]


@contextmanager
def _ir_version(version: int) -> Iterator[None]:
    # onnx.helper writes the newest IR version that onnx knows, which onnxruntime-training does not read.
    modules: list[Any] = [module for module in (onnx, onnx.helper) if hasattr(module, "IR_VERSION")]
    before = [module.IR_VERSION for module in modules]
    for module in modules:
        module.IR_VERSION = version
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.IR_VERSION = value
