"""What a Slice takes of its input, where the graph says so. Reads the graph only."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import END, Dim, DimOf, Dims, ShapeOf

__all__ = ["cuts", "sliced"]


class Known(Protocol):
    """What has to be known of values."""

    def of(self, value: ir.Value) -> Dims | ShapeOf:
        """Return the shape of a value."""

    def contents(self, value: ir.Value | None) -> np.ndarray | None:
        """Return the elements of an integer tensor; None where they are unknown."""


def cuts(node: ir.Node, known: Known) -> list[tuple[int, int, int]] | None:
    """Return (axis, start, end) for each axis that a Slice cuts; None where they are not known, or steps skip."""
    if "starts" in node.attributes:
        starts, ends = list(node.attributes.get_ints("starts")), list(node.attributes.get_ints("ends"))
        axes, steps = list(node.attributes.get_ints("axes", range(len(starts)))), [1] * len(starts)
    else:
        lists: list[list[Any]] = []
        for value in (*node.inputs[1:], None, None)[:4]:
            bound = None if value is None else known.contents(value)
            if value is not None and bound is None:
                return None
            lists.append([] if bound is None else bound.reshape(-1).tolist())
        starts, ends, axes, steps = lists
        axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    found = list(zip(axes, starts, ends, strict=True))
    whole = all(isinstance(number, int) for cut in found for number in cut)
    return found if whole and all(step == 1 for step in steps) else None


def sliced(node: ir.Node, known: Known) -> Dims | None:
    """Return the shape of a slice of data; a cut to one entry is the dimension 1."""
    data = node.inputs[0]
    traced, found = ShapeOf(node.outputs[0]) if data is None else known.of(data), cuts(node, known)
    if isinstance(traced, ShapeOf) or found is None:
        return None
    dims: list[Dim] = list(traced)
    for axis, start, end in found:
        if (start, min(end, END)) in ((0, 1), (-1, END)):
            dims[axis] = 1
        elif start != 0 or end < END:
            dims[axis] = DimOf(node.outputs[0], axis % len(dims))
    return tuple(dims)
