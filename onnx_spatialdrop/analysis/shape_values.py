"""What ops on small integer tensors do to the dimensions that these hold; NumPy on arrays of objects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.dim_algebra import END, Dim, OpaqueDim, over, times

__all__ = ["RULES", "objects"]


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
        raise ValueError("not numbers")
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
    if node.op_type in ("Max", "Min") and len(operands) == 1:
        return _first(operands)
    if len(operands) != 2 or operands[0] is None or operands[1] is None:
        raise ValueError("not known")
    left, right = np.broadcast_arrays(operands[0], operands[1])
    pairs = zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True)
    unknown = (OpaqueDim(node.outputs[0], index) for index in range(left.size))
    items = [_combined(node.op_type, a, b, other) for (a, b), other in zip(pairs, unknown, strict=True)]
    return objects(items).reshape(left.shape)


def _combined(op_type: str, a: Dim, b: Dim, unknown: Dim) -> Dim:
    neutral = 1 if op_type in ("Mul", "Div") else 0
    if b == neutral and op_type not in ("Max", "Min"):
        return a
    if a == neutral and op_type in ("Mul", "Add"):
        return b
    if op_type == "Mul":
        return times(a, b)
    if not isinstance(a, int) or not isinstance(b, int):
        exact = over(a, b) if op_type == "Div" else None
        return unknown if exact is None else exact
    return {"Add": a + b, "Sub": a - b, "Div": a // (b or 1), "Max": max(a, b), "Min": min(a, b)}[op_type]


def _reduced(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    whole = _first(operands)
    axes = _axes(node, operands)
    if whole.ndim != 1 or (axes is None and node.attributes.get_int("noop_with_empty_axes", 0) == 1):
        raise ValueError("not known")
    op_type = {"ReduceProd": "Mul", "ReduceMax": "Max", "ReduceMin": "Min", "ReduceSum": "Add"}[node.op_type]
    items, unknown = whole.tolist(), OpaqueDim(node.outputs[0], 0)
    result: Dim = items[0] if items else {"Mul": 1, "Add": 0}[op_type]
    for item in items[1:]:
        result = _combined(op_type, result, item, unknown)
    return objects([result]).reshape((1,) if node.attributes.get_int("keepdims", 1) else ())


def _size(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    return objects([_first(operands).size]).reshape(())


def _where(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    condition, left, right = _first(operands), operands[1], operands[2]
    if left is None or right is None:
        raise ValueError("not known")
    return np.where(np.array(_ints(condition), np.bool_).reshape(condition.shape), left, right)


def _not(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    return objects([not item for item in _ints(operands[0])]).reshape(_first(operands).shape)


def _equal(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    if operands[0] is None or operands[1] is None:
        raise ValueError("not known")
    left, right = np.broadcast_arrays(operands[0], operands[1])
    pairs = zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True)
    return objects([_are_equal(a, b) for a, b in pairs]).reshape(left.shape)


def _are_equal(a: Dim, b: Dim) -> bool:
    numbers = [dim for dim in (a, b) if isinstance(dim, int)]
    if len(numbers) == 2 or a == b:
        return a == b
    if any(number < 0 for number in numbers) and not any(isinstance(dim, OpaqueDim) for dim in (a, b)):
        return False  # no dimension is negative
    raise ValueError("not known")


def _range(_: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    start, limit, step = (_ints(operand)[0] for operand in operands)
    return objects(list(range(start, limit, step)))


def _pad(node: ir.Node, operands: list[np.ndarray | None]) -> np.ndarray:
    array = _first(operands)
    before, after = _ints(operands[1])
    fill = operands[2].reshape(-1)[0] if len(operands) > 2 and operands[2] is not None else 0
    if node.attributes.get_string("mode", "constant") != "constant" or array.ndim != 1 or min(before, after) < 0:
        raise ValueError("not known")
    return objects([fill] * before + array.tolist() + [fill] * after)


def _split(node: ir.Node, operands: list[np.ndarray | None]) -> list[np.ndarray]:
    whole, parts = _first(operands), len(node.outputs)
    sizes = list(node.attributes.get_ints("split", ()))
    if len(operands) > 1:
        sizes = _ints(operands[1])
    if whole.ndim != 1:
        raise ValueError("not known")
    sizes = sizes or [-(-len(whole) // parts)] * parts
    return np.split(whole, np.cumsum(sizes)[:-1])


#: op type -> what its result holds, given the node and what its inputs hold; raises where that is not known. A list has
#: one array an output.
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
    "Where": _where,
    "Not": _not,
    "Equal": _equal,
    "Range": _range,
    "Pad": _pad,
    "Split": _split,
    "Size": _size,
    "ConcatFromSequence": _concat,
    **dict.fromkeys(("ReduceProd", "ReduceMax", "ReduceMin", "ReduceSum"), _reduced),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _arithmetic),
}
