"""The mask of a dropout that drops nothing: ones of the right shape and type, in standard operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import NodeProto, helper, numpy_helper

__all__ = ["BOOL_FROM", "TrueMask"]

#: Up to the opset before this one, the mask of ONNX's Dropout is of the type of X.
BOOL_FROM: Final = 10
_CONSTANT_OF_SHAPE_FROM: Final = 9
_BROADCAST_FROM: Final = 7
_SCATTER_ELEMENTS_FROM: Final = 11


class _Step(NamedTuple):
    """A node of the recipe: its role names what it computes; inputs are roles, or "x"."""

    role: str
    op_type: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


class TrueMask(NamedTuple):
    """A tensor of True, or of 1, of the shape of X with ``axes`` set to 1.

    Attributes:
        axes: negative ones count from the end.
        opset: the version of ONNX's default domain.
        dtype: the type of the mask.
    """

    axes: tuple[int, ...]
    opset: int
    dtype: npt.DTypeLike = np.bool_

    def _recipe(self) -> list[_Step]:
        one = np.array([1]).astype(self.dtype)
        if self.opset < _CONSTANT_OF_SHAPE_FROM and self.dtype != np.bool_:  # pow(x, 0) is 1, of NaN and infinity too
            broadcast = {} if self.opset >= _BROADCAST_FROM else {"broadcast": 1}
            zero = _Step("zero", "Constant", (), {"value": np.zeros((), self.dtype)})
            return [zero, _Step("kept", "Pow", ("x", "zero"), broadcast)]
        shape = _Step("shape", "Shape", ("x",), {})
        if not self.axes:
            return [shape, _Step("kept", "ConstantOfShape", ("shape",), {"value": one})]
        where = _Step("axes", "Constant", (), {"value": np.array(self.axes, np.int64)})
        ones = _Step("ones", "Constant", (), {"value": np.ones(len(self.axes), np.int64)})
        scatter = "ScatterElements" if self.opset >= _SCATTER_ELEMENTS_FROM else "Scatter"
        masked = _Step("mask_shape", scatter, ("shape", "axes", "ones"), {})
        return [shape, where, ones, masked, _Step("kept", "ConstantOfShape", ("mask_shape",), {"value": one})]

    def protos(self, x: str, mask: str, prefix: str) -> list[NodeProto]:
        """Return nodes that compute ``mask`` of ``x``; other names begin with ``prefix``."""
        steps = self._recipe()
        names = {"x": x} | {step.role: f"{prefix}/{step.role}" for step in steps}
        names[steps[-1].role] = mask
        nodes = []
        for step in steps:
            given = {
                key: numpy_helper.from_array(np.asarray(value)) if key == "value" else value
                for key, value in step.attributes.items()
            }
            inputs = [names[role] for role in step.inputs]
            nodes.append(helper.make_node(step.op_type, inputs, [names[step.role]], f"{prefix}/{step.role}", **given))
        return nodes

    def nodes(self, x: ir.Value, prefix: str) -> Sequence[ir.Node]:
        """Return nodes whose last computes the mask of ``x``; all names begin with ``prefix``."""
        made: dict[str, ir.Node] = {}
        for step in self._recipe():
            given = [
                ir.AttrTensor(key, ir.tensor(value)) if key == "value" else ir.AttrInt64(key, value)
                for key, value in step.attributes.items()
            ]
            name = f"{prefix}/{step.role}"
            inputs = [x if role == "x" else made[role].outputs[0] for role in step.inputs]
            made[step.role] = ir.Node("", step.op_type, inputs, given, outputs=[ir.Value(name=name)], name=name)
        return list(made.values())
