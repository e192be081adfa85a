"""What a form needs to know about one SpatialDropout node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """One node to expand.

    Attributes:
        node: the SpatialDropout node.
        attributes: its attributes, checked.
        opset: the version of ONNX's default domain where it stands.
        x: its input X.
        dtype: the type of X; None where neither the file nor shape inference tells.
        training: the switch; None where training_mode is constantly true.
        step: its input ``step``.
        target: the runtime to expand for.
        draw: the seed of the runtime's own generator, an integer that float32 holds exactly.
        mask: the graph input that is the mask, in the form "mask-inputs"; None elsewhere.
    """

    node: ir.Node
    attributes: spec.Attributes
    opset: int
    x: ir.Value
    dtype: np.dtype[Any] | None
    shape: ir.Shape | None
    training: ir.Value | None
    step: ir.Value
    target: str
    draw: int
    mask: ir.Value | None = None

    @property
    def where(self) -> str:
        """Return how error messages name the node."""
        return op.describe(self.node)

    def mask_dims(self) -> list[int] | None:
        """Return the mask's shape where it is the same in every run, else None."""
        if self.shape is None:
            return None
        shared = spec.normalize_axes(self.attributes.axes, len(self.shape), self.where)
        dims = [1 if axis in shared else dim for axis, dim in enumerate(self.shape)]
        numbers = [dim for dim in dims if isinstance(dim, int)]
        return numbers if len(numbers) == len(dims) else None
