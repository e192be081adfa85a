"""The form "standard": RandomUniform with a defined generator, as onnx/onnx #8161 proposes it. The operator's bits.

No runtime has it yet. It takes one step a run and a fixed shape, and knows no fresh draw: a negative step is a stream
like any other.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.passes.expand import lowering
from onnx_spatialdrop.passes.expand.task import Task

__all__ = ["lower"]

_FORM: Final = "standard"
_ELSE: Final = "use form='philox' for a runtime that there is, or form='mask-inputs'"


def lower(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    """Append RandomUniform, Less and the product to ``group``; return Y and the mask.

    Raises:
        FormError: a mask whose shape the file does not fix, several steps, a fresh draw, ``strata``, another ``rng``.
    """
    shape = _checked_shape(task)
    ratio = lowering.switched(group, task.training, np.float32(task.attributes.ratio), np.float32(0), "threshold")
    draw = group.add(
        "RandomUniform",
        _offset(group, task),
        role="RandomUniform",
        shape=shape,
        dtype=int(ir.DataType.FLOAT),
        generator="philox4x32_10",
        seed_int64=task.attributes.seed,
    )
    dropped = group.add("Less", draw, ratio, role="dropped")
    return lowering.choose(group, task, dropped), group.add("Not", dropped, role="mask")


def _checked_shape(task: Task) -> list[int]:
    attributes, shape = task.attributes, task.mask_dims()
    if attributes.rng != "philox" or attributes.strata != 1:
        what = f"rng {attributes.rng!r}" if attributes.rng != "philox" else f"strata {attributes.strata}"
        raise FormError(f"{task.where}: form {_FORM!r} has no generator for {what}; {_ELSE}")
    if shape is None:
        raise FormError(
            f"{task.where}: form {_FORM!r} needs a mask of a fixed shape, and the file leaves sizes open; "
            f"fix them (onnx.tools.update_model_dims), or {_ELSE}"
        )
    return shape


def _offset(group: NodeBuilder, task: Task) -> ir.Value:
    constant = controls.constant_of(task.step)
    dims = task.step.shape
    size = constant.size if constant is not None else 1 if dims is None else next(iter(dims), 1)
    if isinstance(size, int) and size != 1:
        raise FormError(f"{task.where}: form {_FORM!r} takes one step a run, and this node has {size}; {_ELSE}")
    if constant is not None and int(constant.reshape(())) < 0:
        raise FormError(
            f"{task.where}: form {_FORM!r} knows no fresh draw, and the step is always {int(constant.reshape(()))}; "
            "make it an input or a number from 0 on (fix)"
        )
    return group.add("Squeeze", task.step, role="offset")
