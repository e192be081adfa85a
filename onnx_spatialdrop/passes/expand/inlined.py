"""The forms "philox" and "philox-int32": the function body with a node's attributes in it. They promise the bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator.bodies import body, int32
from onnx_spatialdrop.passes.expand import fold, lowering, targets
from onnx_spatialdrop.passes.expand.routines import Instruction, Routine, routines
from onnx_spatialdrop.passes.expand.task import Task

__all__ = ["lower", "lower_int32", "refuse_for_single"]

#: What a name inside a function stands for: a constant that is not a node yet, or a value.
Meaning = npt.NDArray[Any] | ir.Value
#: Operators that may boil down to one of their inputs, though not all of them are constant.
_REDUCIBLE: Final = frozenset({"CastLike", "Where", "ScatterElements", "And", "BitwiseAnd", "BitwiseOr"})


def lower(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    """Append the function body to ``group``; return Y and the mask."""
    rng, balanced = task.attributes.rng, task.attributes.strata != 1
    return _inline(group, task, _body(task.opset, rng, _in_float(task), _type_name(task), balanced))


def lower_int32(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    """Append the int32 function body to ``group``; return Y and the mask."""
    # OpenVINO and tract refuse Dropout while training; ONNX Runtime has no RandomUniformLike at opset 22.
    single = task.target in targets.SINGLE_STEP
    if single:
        refuse_for_single(task.target, task.attributes, task.step)
    nonce: int32.Nonce = "uniform" if single or task.target == "openvino" else "dropout"
    rng, in_float, dtype = task.attributes.rng, _in_float(task), _type_name(task)
    balanced = task.attributes.strata != 1
    return _inline(group, task, _body_int32(task.opset, rng, nonce, in_float, dtype, single, balanced))


def refuse_for_single(target: str, attributes: spec.Attributes, step: ir.Value) -> None:
    """Refuse what a target of targets.SINGLE_STEP cannot run in the form "philox-int32".

    Raises:
        FormError: a dialect that it does not come back from loading, or several steps.
    """
    if not targets.runs_dialect("philox-int32", target, attributes.rng):
        raise FormError(
            f"{attributes.where}: {target} does not come back from loading the form 'philox-int32' of rng "
            f"{attributes.rng!r}; use form='mask-inputs' or 'uniform'"
        )
    dims = None if step.shape is None else tuple(step.shape)
    if dims is not None and any(isinstance(dim, int) and dim != 1 for dim in dims):
        raise FormError(
            f"{attributes.where}: form 'philox-int32' takes one step a run in {target}, and this node's step has the "
            f"shape {list(dims)}; use form='mask-inputs' or 'uniform'"
        )


# They are only read, so nodes of one kind share them.
@lru_cache(maxsize=32)
def _body(opset: int, rng: str, in_float: bool, dtype: str | None, balanced: bool) -> list[Routine]:
    return routines(body.functions(opset, (rng,), in_float=in_float, guarded=False, dtype=dtype, balanced=balanced))


@lru_cache(maxsize=32)
def _body_int32(
    opset: int, rng: str, nonce: int32.Nonce, in_float: bool, dtype: str | None, single: bool, balanced: bool
) -> list[Routine]:
    return routines(
        int32.functions(opset, rng, nonce=nonce, in_float=in_float, dtype=dtype, single=single, balanced=balanced)
    )


def _type_name(task: Task) -> str | None:
    if task.dtype is not None:
        dialects.word_test(task.attributes.rng, task.dtype, task.where)
    return None if task.dtype is None else task.dtype.name


def _in_float(task: Task) -> bool:
    return task.dtype is not None and task.dtype == np.dtype(ml_dtypes.bfloat16)


def _inline(group: NodeBuilder, task: Task, functions: list[Routine]) -> tuple[ir.Value, ir.Value]:
    training = np.array(True) if task.training is None else task.training
    attributes = _attributes(task)
    inliner = _Inliner(group, functions, task)
    y, mask = inliner.call(functions[-1], [task.x, training, _step(group, task)], attributes, "")
    return inliner.value(y), inliner.value(mask)


def _attributes(task: Task) -> dict[str, ir.Attr]:
    found = task.attributes
    if found.scale == 0.0 and task.dtype is not None and task.dtype.itemsize <= 4:
        found = dataclasses.replace(found, scale=float(spec.kept_scale(found.ratio, 0.0, task.dtype)))
    carrier = ir.Node(spec.DOMAIN, spec.OP_TYPE, [])
    op.write(carrier, found)
    return dict(carrier.attributes)


def _step(group: NodeBuilder, task: Task) -> Meaning:
    constant = controls.constant_of(task.step)
    if constant is None or constant.size > 1:
        return task.step
    if constant.size == 1 and constant.item() >= 0:
        return constant.reshape(-1)
    # A fresh draw every run must depend on the data, or optimisers take it for a constant and freeze it.
    corner = lowering.corner(group, task)
    none = group.add("Less", corner, corner, role="never")
    nothing = group.add("ReduceSum", group.add("Cast", none, role="zeros", to=7), role="nothing", keepdims=0)
    return group.add("Add", task.step, nothing, role="fresh_step")


class _Inliner:
    """Writes calls of functions into a group, folding what is constant and sharing equal constants."""

    def __init__(self, group: NodeBuilder, functions: list[Routine], task: Task) -> None:
        self._group = group
        self._functions = {function.name: function for function in functions}
        self._task = task
        self._constants: dict[tuple[np.dtype[Any], tuple[int, ...], bytes], ir.Value] = {}

    def call(
        self, function: Routine, inputs: list[Meaning], attributes: dict[str, ir.Attr], path: str
    ) -> list[Meaning]:
        """Write one call; return what its outputs stand for."""
        meanings: list[Meaning] = [*inputs, *function.constants]
        for step in function.steps:
            arguments = [meanings[place] for place in step.inputs]
            if step.function:
                inner = f"{path}{step.outputs[0]}/"
                meanings += self.call(self._functions[step.op_type], arguments, step.given(attributes), inner)
            else:
                meanings += self._node(step, arguments, attributes, path)
        return [meanings[place] for place in function.outputs]

    def value(self, meaning: Meaning) -> ir.Value:
        """Return a value for ``meaning``, a Constant node where it has none yet."""
        if isinstance(meaning, ir.Value):
            return meaning
        key = (meaning.dtype, meaning.shape, meaning.tobytes())
        if key not in self._constants:
            self._constants[key] = self._group.constant(meaning, f"constant_{len(self._constants)}")
        return self._constants[key]

    def _node(
        self, step: Instruction, inputs: list[Meaning], attributes: dict[str, ir.Attr], path: str
    ) -> Iterable[Meaning]:
        op_type, given = step.op_type, step.given(attributes)
        if op_type == "Constant":
            return [fold.constant_array(given)]
        if op_type in _REDUCIBLE and (chosen := self._chosen(op_type, inputs)) is not None:
            return [chosen]
        arrays = [meaning for meaning in inputs if isinstance(meaning, np.ndarray)]
        if len(arrays) == len(inputs):
            folded = fold.fold(op_type, arrays, given)
            if folded is not None:
                return folded
        roles = [path + name for name in step.outputs]
        return self._group.outputs(op_type, [self.value(meaning) for meaning in inputs], roles, **given)

    def _chosen(self, op_type: str, inputs: list[Meaning]) -> Meaning | None:
        """Return the input, or the constant of X's type, that a node boils down to; None where it does not."""
        first = inputs[0] if inputs else None
        if op_type == "CastLike" and isinstance(first, np.ndarray) and self._task.dtype is not None:
            with np.errstate(over="ignore"):
                return first.astype(self._task.dtype)
        if op_type == "Where" and isinstance(first, np.ndarray) and first.size == 1:
            return inputs[1] if first.item() else inputs[2]
        if op_type == "ScatterElements" and isinstance(inputs[1], np.ndarray) and inputs[1].size == 0:
            return first  # no axes are shared; OpenVINO reads an empty list as a scalar
        if op_type == "And" and isinstance(inputs[1], np.ndarray) and inputs[1].ndim == 0 and inputs[1].item():
            return first
        return _masked(op_type, inputs)


def _masked(op_type: str, inputs: list[Meaning]) -> Meaning | None:
    """Return what a bit operation on vectors of one element boils down to, one being a constant of all or no bits."""
    constant = next((each for each in inputs if isinstance(each, np.ndarray)), None)
    if op_type not in ("BitwiseAnd", "BitwiseOr") or constant is None or constant.shape != (1,):
        return None
    other = inputs[1] if constant is inputs[0] else inputs[0]
    if constant.item() == 0:
        return constant if op_type == "BitwiseAnd" else other
    return other if constant.item() == -1 and op_type == "BitwiseAnd" else None
