"""The form "uniform": numbers from the runtime's generator, compared with 1 - ratio. It promises the distribution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.passes.expand import lowering
from onnx_spatialdrop.passes.expand.task import Task

__all__ = ["lower", "threshold"]


def lower(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    """Append RandomUniform(Like), Less, Cast, Mul, Mul to ``group``; return Y and the mask.

    Less, since onnx2torch knows no GreaterOrEqual of opset 16, and never Bernoulli, which ONNX Runtime inverts. No If:
    random nodes inside one share a draw.
    """
    mask = group.add("Less", _numbers(group, task), threshold(group, task), role="mask")
    return lowering.drop(group, task, mask), mask


def _numbers(group: NodeBuilder, task: Task) -> ir.Value:
    # onnx2pytorch starts a seeded node anew in every run, which would train with one mask for ever.
    seed = {} if task.target == "onnx2pytorch" else {"seed": float(task.draw)}
    dims = task.mask_dims()
    if dims is not None:
        return group.add("RandomUniform", role="RandomUniform", shape=dims, dtype=1, **seed)
    # tract reads the node as RandomUniformLike only if its name ends in "Like".
    return group.add("RandomUniformLike", lowering.corner(group, task), role="RandomUniformLike", dtype=1, **seed)


def threshold(group: NodeBuilder, task: Task) -> ir.Value:
    """Return 1 - ratio while training, else 2: a number in [0, 1) below it is kept.

    Ratio 0 gets 2 as well, since some generators can round up to 1.
    """
    ratio = task.attributes.ratio
    keep = np.float32(2.0 if ratio == 0.0 else 1.0 - ratio)
    return lowering.switched(group, task.training, keep, np.float32(2.0), "threshold")
