"""The one exception family. Every message says what was found, where, what is allowed and what to do next."""

from __future__ import annotations

__all__ = [
    "FormError",
    "KernelError",
    "ModelFileError",
    "SpatialDropError",
    "SpecError",
    "TrainerError",
    "VerifyError",
]


class SpatialDropError(Exception):
    """Base of every error that onnx_spatialdrop raises on purpose."""


class SpecError(SpatialDropError, ValueError):
    """A node, attribute or input that the operator's definition does not allow."""


class FormError(SpatialDropError, ValueError):
    """A form that a node cannot be lowered to: wrong opset, type, shape or target."""


class KernelError(SpatialDropError, RuntimeError):
    """A kernel that was asked for and cannot be used on this machine."""


class TrainerError(SpatialDropError, RuntimeError):
    """A trainer that was asked for and cannot be used here, or weights that do not fit the model."""


class VerifyError(SpatialDropError, RuntimeError):
    """Two models that cannot be compared: layers that do not match, a runtime or a recording that does not fit."""


class ModelFileError(SpatialDropError, OSError):
    """A model file that cannot be read or written."""
