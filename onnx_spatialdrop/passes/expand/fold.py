"""What the nodes of a function body compute from constants, so that an inlined body holds no arithmetic on attributes.

Only the operators that the bodies use on constants; anything else stays a node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["constant_array", "fold"]

Array = npt.NDArray[Any]
_VALUE_TYPES: Final = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
}


def constant_array(attributes: dict[str, ir.Attr]) -> Array:
    """Return the array of a Constant node with these attributes."""
    (attribute,) = attributes.values()
    if attribute.name == "value":
        array: Array = attribute.value.numpy()  # as_tensor checks the type by a protocol, which takes longer than this
        return array
    return np.array(attribute.value, _VALUE_TYPES[attribute.name])


def fold(op_type: str, inputs: list[Array], attributes: dict[str, ir.Attr]) -> list[Array] | None:
    """Return what a node computes from constant inputs, an array an output, or None where this module does not know.

    Args:
        op_type: an operator of ONNX's default domain.
        inputs: its inputs.
        attributes: its attributes, none of them a reference.
    """
    if op_type == "Cast":
        return [inputs[0].astype(ir.DataType(attributes["to"].as_int()).numpy())]
    if op_type == "Concat":
        return [np.concatenate(inputs, attributes["axis"].as_int())]
    if op_type == "Split" and len(inputs) == 1:
        return np.split(inputs[0], attributes["num_outputs"].as_int(), attributes["axis"].as_int())
    if op_type == "BitShift":
        shift = np.left_shift if attributes["direction"].as_string() == "LEFT" else np.right_shift
        return [np.asarray(shift(*inputs))]
    if op_type == "Gather":
        return [np.take(inputs[0], inputs[1], axis=attributes["axis"].as_int())]
    if op_type == "ReduceSum" and len(inputs) == 1:
        return [np.sum(inputs[0], dtype=inputs[0].dtype, keepdims=bool(attributes["keepdims"].as_int()))]
    known = _FOLDS.get(op_type)
    if known is None:
        return None
    with np.errstate(all="ignore"):  # wrapping int32, and 1 / (1 - 1) where nothing is kept
        return [np.asarray(known(*inputs))]


def _divide(a: Array, b: Array) -> Array:
    """Return the quotient; of integers, as ONNX Runtime has it, without what is behind the point."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    below = a // b
    return np.asarray(below + ((below < 0) & (a % b != 0))).astype(a.dtype)


def _wrapping(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Return ``function`` on at least one dimension: NumPy warns when a scalar wraps, but not when an array does."""

    def wrapped(a: Array, b: Array) -> Array:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return np.asarray(function(np.atleast_1d(a), np.atleast_1d(b))).reshape(shape)

    return wrapped


def _slice(a: Array, starts: Array, ends: Array, axes: Array | None = None) -> Array:
    axes = np.arange(len(starts)) if axes is None else axes
    cut = [slice(None)] * a.ndim
    for axis, start, end in zip(axes.tolist(), starts.tolist(), ends.tolist(), strict=True):
        cut[axis] = slice(start, end)
    return a[tuple(cut)]


def _unsqueeze(a: Array, axes: Array) -> Array:
    return np.expand_dims(a, tuple(axes.tolist()))


_FOLDS: Final[dict[str, Callable[..., Any]]] = {
    "Add": _wrapping(np.add),
    "And": np.logical_and,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "Ceil": np.ceil,
    "Div": _divide,
    "Equal": np.equal,
    "Expand": lambda a, shape: np.broadcast_to(a, np.broadcast_shapes(a.shape, tuple(shape))),
    "Greater": np.greater,
    "Less": np.less,
    "Max": np.maximum,
    "Mod": np.mod,
    "Mul": _wrapping(np.multiply),
    "Not": np.logical_not,
    "Pow": np.power,
    "Reshape": lambda a, shape: a.reshape(tuple(shape)),
    "Shape": lambda a: np.array(a.shape, np.int64),
    "Slice": _slice,
    "Squeeze": np.squeeze,
    "Sub": np.subtract,
    "Unsqueeze": _unsqueeze,
    "Where": np.where,
}
