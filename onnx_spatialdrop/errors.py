"""The one exception family. Every message says what was found, where, what is allowed and what to do next."""

from __future__ import annotations

__all__ = [
    "FormError",
    "KernelError",
    "ModelFileError",
    "ModelFileWarning",
    "PostconditionError",
    "SpatialDropError",
    "SpecError",
    "TrainerError",
    "TrainingLeftError",
    "TrainingLeftWarning",
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


class PostconditionError(SpatialDropError, RuntimeError):
    """A rewrite that would have left a wrong model: a fault of this package; nothing was written.

    Attributes:
        found: what is wrong.
        node: the node that should be gone and is not; None where the model's interface is not what it was.
    """

    def __init__(self, found: str, node: object = None) -> None:
        super().__init__(f"{found}; this is a fault of onnx_spatialdrop, and nothing was written: please report it")
        self.found = found
        self.node = node


class ModelFileError(SpatialDropError, OSError):
    """A model file that cannot be read or written."""


class TrainingLeftError(SpatialDropError, ValueError):
    """What to_inference left in training mode, or could not prove to be dropout, and ``strict`` forbids."""


class TrainingLeftWarning(UserWarning):
    """What to_inference left in training mode, or could not prove to be dropout."""


class ModelFileWarning(UserWarning):
    """What was put right in a model as it was read, so that it is not what the file says."""
