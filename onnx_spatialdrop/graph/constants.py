"""Values that are one known number everywhere, however the file writes them. Never computes with big tensors."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.malformed import MalformedNodeError, reading
from onnx_spatialdrop.graph.ops import Fact

__all__ = ["Constants", "array_of", "cast_target", "dtype_of", "is_switch"]

#: How deep a constant is followed through the nodes that compute it.
_DEPTH: Final = 16
#: Larger tensors are taken for weights and not looked at.
_LARGEST: Final = 1 << 24


def array_of(value: ir.Value | None, overridable: bool = False) -> np.ndarray | None:
    """Return the tensor that ``value`` always holds; None where there is none or its data cannot be had.

    Args:
        value: any value.
        overridable: take the default of a graph input for constant too (before IR version 4 every initializer is
            listed as an input).
    """
    if value is None or (value.is_graph_input() and not overridable):
        return None
    try:
        tensor = _tensor_of(value)
        return None if tensor is None or tensor.size > _LARGEST else tensor.numpy()
    except (OSError, TypeError, ValueError):
        return None


def _tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain:
        return None
    attribute = node.attributes.get("value")
    if attribute is not None and not attribute.is_ref():
        # Not get_const_tensor, which names the tensor after the value: the tensor may be the caller's own.
        return attribute.as_tensor()
    return ir.convenience.get_const_tensor(value)


def is_switch(value: ir.Value) -> bool:
    """Return whether ``value`` is a graph input of one bool, which callers may set."""
    if not value.is_graph_input() or value.dtype != ir.DataType.BOOL:
        return False
    return value.shape is not None and all(size == 1 for size in value.shape)


class Constants:
    """Memory of which values are one number everywhere.

    Args:
        overridable: see array_of.
        training: what every switch is taken to be. A switch is a graph input of one bool.
    """

    def __init__(self, overridable: bool = False, training: bool = True) -> None:
        self._overridable = overridable
        self.training = training
        self._known: dict[ir.Value, np.generic | None] = {}

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """Return array_of(value)."""
        return array_of(value, self._overridable)

    def shape(self, value: ir.Value) -> tuple[int, ...] | None:
        """Return the shape of a constant, whose data are not read; None for any other value."""
        if value.is_graph_input() and not self._overridable:
            return None
        tensor = _tensor_of(value)
        return None if tensor is None else tuple(tensor.shape.numpy())

    def number(self, value: ir.Value | None, depth: int = _DEPTH) -> np.generic | None:
        """Return the number that every entry of ``value`` is, as a scalar of its type; None where that is unknown."""
        if value is None or depth == 0:
            return None
        if value not in self._known:
            try:
                with np.errstate(all="ignore"):
                    self._known[value] = self._work_out(value, depth)
            except MalformedNodeError:
                self._known[value] = None
        return self._known[value]

    def _work_out(self, value: ir.Value, depth: int) -> np.generic | None:
        array = self.array(value)
        if array is not None:
            flat = array.reshape(-1)
            return flat[0] if flat.size and bool((flat == flat[0]).all()) else None
        if is_switch(value):
            return np.bool_(self.training)
        node = value.producer()
        if node is None or node.domain != "" or value.index() != 0:
            return None
        with reading(node):
            return self._of_node(node, value, depth)

    def _of_node(self, node: ir.Node, value: ir.Value, depth: int) -> np.generic | None:
        op_type, inputs = node.op_type, node.inputs
        if op_type == "Where":
            condition = self.number(inputs[0], depth - 1)
            return None if condition is None else self.number(inputs[1 if condition else 2], depth - 1)
        if op_type == "ConstantOfShape":
            tensor = node.attributes.get_tensor("value", None)
            return np.float32(0) if tensor is None else tensor.numpy().reshape(-1)[0]
        if ops.has(node, Fact.VIEW):
            return self.number(inputs[0], depth - 1)
        if op_type in ("And", "Or"):
            known = [number for number in (self.number(operand, depth - 1) for operand in inputs) if number is not None]
            deciding = [number for number in known if bool(number) == (op_type == "Or")]
            return deciding[0] if deciding else known[0] if len(known) == 2 else None
        if op_type in ("Cast", "CastLike"):
            return self._cast(node, depth)
        function = ops.entry_function(node)
        if function is None or not 1 <= len(inputs) <= 2 or (len(inputs) == 2) != ops.has(node, Fact.ENTRIES):
            return None
        right = self.number(inputs[-1], depth - 1)
        left = self.number(inputs[0], depth - 1) if right is not None or op_type == "Mul" else None
        if left is None or right is None:
            return self._zero(value, op_type, left, right) if len(inputs) == 2 else None
        result = ops.compute(function, *(left, right)[: len(inputs)], *ops.parameters(node))
        return (np.dtype(np.bool_) if ops.has(node, Fact.BOOLEAN) else left.dtype).type(result[()])

    def _zero(
        self, value: ir.Value, op_type: str, left: np.generic | None, right: np.generic | None
    ) -> np.generic | None:
        """Return the zero that x * 0 and x - x are, of finite x; None for anything else."""
        node, dtype = value.producer(), dtype_of(value)
        assert node is not None
        known = left if left is not None else right
        by_zero = op_type == "Mul" and known is not None and not known
        itself = op_type == "Sub" and node.inputs[0] is node.inputs[1]
        return None if dtype is None or not (by_zero or itself) else dtype.type(0)

    def switches(self, value: ir.Value | None, depth: int = _DEPTH) -> frozenset[ir.Value]:
        """Return the switches that the number of ``value`` depends on."""
        if value is None or depth == 0 or self.number(value) is None or self.array(value) is not None:
            return frozenset()
        if is_switch(value):
            return frozenset({value})
        node = value.producer()
        operands = [] if node is None else node.inputs
        return frozenset().union(*(self.switches(operand, depth - 1) for operand in operands))

    def _cast(self, node: ir.Node, depth: int) -> np.generic | None:
        number, target = self.number(node.inputs[0], depth - 1), cast_target(node)
        return number if number is None or target is None else target.type(number)


def cast_target(node: ir.Node) -> np.dtype[Any] | None:
    """Return the type that a Cast or CastLike casts to; None where the file does not say."""
    if node.op_type == "Cast":
        code = node.attributes.get_int("to", 0)
        return ir.DataType(code).numpy() if code else None
    return dtype_of(node.inputs[1]) if len(node.inputs) > 1 else None


def dtype_of(value: ir.Value | None) -> np.dtype[Any] | None:
    """Return the type of a value, which the file may leave to be worked out; None where that is not simple."""
    for _ in range(_DEPTH):
        if value is None:
            return None
        if value.dtype is not None:
            return value.dtype.numpy()
        array, node = array_of(value, overridable=True), value.producer()
        if array is not None:
            return array.dtype
        if node is None or node.domain != "" or not node.inputs:
            return None
        if node.op_type == "Cast":
            return cast_target(node)
        if node.op_type == "ConstantOfShape":
            tensor = node.attributes.get_tensor("value", None)
            return np.dtype(np.float32) if tensor is None else tensor.dtype.numpy()
        if ops.has(node, Fact.BOOLEAN):
            return np.dtype(np.bool_)
        if node.op_type != "CastLike" and not ops.has(node, Fact.TYPE) and not node.op_type.endswith("Like"):
            return None
        value = node.inputs[1 if node.op_type == "CastLike" and len(node.inputs) > 1 else 0]
    return None
