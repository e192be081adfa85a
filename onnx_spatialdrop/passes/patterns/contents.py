"""What ops on small integer tensors do to the dimensions that these hold; NumPy on arrays of objects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir

__all__ = ["END", "RULES", "Computed", "Dim", "Dims", "Like", "Ref", "objects"]

#: From here on the end of a slice means the end of the axis.
END: Final = (1 << 31) - 1


@dataclass(frozen=True)
class Ref:
    """Dimension ``axis`` of ``value``."""

    value: ir.Value
    axis: int


@dataclass(frozen=True)
class Like:
    """The whole shape of ``value``, whose rank is unknown."""

    value: ir.Value


@dataclass(frozen=True)
class Computed:
    """Entry ``index`` of the integer tensor ``value``, computed in a way that is not followed."""

    value: ir.Value
    index: int


Dim = int | Ref | Computed
Dims = tuple[Dim, ...]


def objects(items: Sequence[Any]) -> np.ndarray:
    """Return a list as an array of objects."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _ints(array: np.ndarray | None) -> list[int]:
    if array is None:
        raise ValueError("not constant")
    flat = array.reshape(-1).tolist()
    if not all(isinstance(item, int) for item in flat):
        raise TypeError("not numbers")
    return flat


def _axes(node: ir.Node, operands: list[np.ndarray | None]) -> list[int] | None:
    attribute = node.attributes.get_ints("axes", None)
    if attribute is not None:
        return list(attribute)
    return _ints(operands[1]) if len(operands) > 1 and operands[1] is not None else None


def _first(operands: list[np.ndarray | None]) -> np.ndarray:
    if operands[0] is None:
        raise ValueError("not known")
    return operands[0]


def _concat(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    if any(operand is None for operand in operands):
        raise ValueError("not known")
    return np.concatenate([operand for operand in operands if operand is not None])


def _slice(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    if "starts" in node.attributes:
        start, end, step = node.attributes.get_ints("starts")[0], node.attributes.get_ints("ends")[0], 1
    else:
        start, end = _ints(operands[1])[0], _ints(operands[2])[0]
        step = _ints(operands[4])[0] if len(operands) > 4 and operands[4] is not None else 1
    return _first(operands)[start : end if abs(end) < END else None : step]


def _gather(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    indices = operands[1]
    if indices is None:
        raise ValueError("not known")
    return np.asarray(_first(operands)[indices.astype(np.int64)], object)


def _squeeze(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    axes = _axes(node, operands)
    return _first(operands).squeeze(None if axes is None else tuple(axes))


def _unsqueeze(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    return np.expand_dims(_first(operands), tuple(_axes(node, operands) or ()))


def _reshape(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    target = _ints(operands[1]) if len(operands) > 1 else list(node.attributes.get_ints("shape"))
    return _first(operands).reshape(target)


def _expand(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    target = tuple(_ints(operands[1]))
    return np.broadcast_to(_first(operands), np.broadcast_shapes(_first(operands).shape, target)).copy()


def _filled(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    tensor = node.attributes.get_tensor("value", None)
    return np.full(_ints(operands[0]), 0 if tensor is None else int(tensor.numpy().reshape(-1)[0]), object)


def _scatter(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    result, updates = _first(operands).copy(), operands[2]
    if updates is None:
        raise ValueError("not known")
    flat = updates.reshape(-1)
    for position, index in enumerate(_ints(operands[1])):
        result[index] = flat[position]
    return result


def _arithmetic(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    if operands[0] is None or operands[1] is None:
        raise ValueError("not known")
    left, right = np.broadcast_arrays(operands[0], operands[1])
    pairs = zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True)
    unknown = (Computed(node.outputs[0], index) for index in range(left.size))
    items = [_combined(node.op_type, a, b, other) for (a, b), other in zip(pairs, unknown, strict=True)]
    return objects(items).reshape(left.shape)


def _combined(op_type: str, a: Dim, b: Dim, unknown: Dim) -> Dim:
    if op_type in ("Mul", "Div") and b == 1:
        return a
    if op_type == "Mul" and a == 1:
        return b
    if not isinstance(a, int) or not isinstance(b, int):
        return unknown
    return {"Add": a + b, "Sub": a - b, "Mul": a * b, "Div": a // (b or 1), "Max": max(a, b), "Min": min(a, b)}[op_type]


#: op type -> what its result holds, given the node and what its inputs hold; raises where that is not known.
RULES: Final[dict[str, Any]] = {
    "Cast": lambda _, operands: _first(operands),
    "CastLike": lambda _, operands: _first(operands),
    "Identity": lambda _, operands: _first(operands),
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _arithmetic),
}
