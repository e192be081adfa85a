"""Nodes that draw random numbers, and what each draws. Reads one node and the shapes of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.curves import line
from onnx_spatialdrop.analysis.dim_algebra import Dims, ShapeOf
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import (
    AbstractValue,
    Curve,
    Layout,
    ScaleChain,
    TwoValued,
    ViewedValue,
    half_ulp,
    recover,
)
from onnx_spatialdrop.graph.constants import Constants, dtype_of
from onnx_spatialdrop.graph.malformed import MalformedNodeError, reading
from onnx_spatialdrop.operator.node import describe

__all__ = ["SOURCES", "Source", "is_source", "read_source", "switched_off"]

_UNIFORM: Final = frozenset({"RandomUniform", "RandomUniformLike"})
_NORMAL: Final = frozenset({"RandomNormal", "RandomNormalLike"})
#: What tf2onnx leaves in the file when it has no rule for TensorFlow's stateless generator.
_STATELESS: Final = frozenset({"StatelessRandomUniform", "StatelessRandomUniformV2"})
_STANDARD: Final = _UNIFORM | _NORMAL | {"Bernoulli", "Dropout"}
#: The generators of onnx/onnx #8161: the runtime's own, and the one of docs/operator.md.
_UNSPECIFIED: Final = "unspecified"
_PHILOX: Final = "philox4x32_10"
#: What is_source looks for, whatever the domain.
SOURCES: Final = _STANDARD | _STATELESS


@dataclass
class Source:
    """One random node.

    Attributes:
        node: the node.
        abstracts: what its outputs are; empty where they are nothing that dropout is made of.
        reason: why ``abstracts`` is empty.
        kind: what such a refused node is: "gaussian", "elementwise" or "unknown".
        ratio: fraction that a refused Dropout node would drop.
        training_mode: the value that switches a Dropout node on; None where it is always on.
        notes: what is wrong with the node itself, in words.
        off: why a Dropout node does nothing, though its mask is used.
        by_definition: the node is dropout by ONNX's definition, but ONNX Runtime draws the inverse.
    """

    node: ir.Node
    abstracts: dict[ir.Value, AbstractValue] = field(default_factory=dict)
    reason: str = ""
    kind: str = "unknown"
    ratio: float | None = None
    training_mode: ir.Value | None = None
    notes: tuple[str, ...] = ()
    by_definition: bool = False
    off: str = ""

    @property
    def defined(self) -> bool:
        """Whether the file says which numbers the node draws: they follow from a seed and an offset."""
        return self.node.op_type in _UNIFORM and _generator(self.node) != _UNSPECIFIED

    @property
    def seed(self) -> float | int | None:
        """The seed that the file gives the node; None where it has none."""
        if self.node.op_type in _STATELESS:
            return None
        attribute = self.node.attributes.get("seed")
        return None if attribute is None or attribute.is_ref() else attribute.value


def _generator(node: ir.Node) -> str:
    return node.attributes.get_string("generator", _UNSPECIFIED)


def is_source(node: ir.Node) -> bool:
    """Return whether ``node`` draws random numbers of a kind that dropout may be made of."""
    return (node.op_type in _STANDARD and node.domain == "") or node.op_type in _STATELESS


def read_source(node: ir.Node, opset: int, constants: Constants, shapes: Shapes) -> Source:
    """Return what ``node``, for which is_source holds, draws."""
    try:
        with reading(node):
            return _read(node, opset, constants, shapes)
    except MalformedNodeError:
        return Source(node, reason=f"{describe(node)} is no valid {node.op_type} node")


def _read(node: ir.Node, opset: int, constants: Constants, shapes: Shapes) -> Source:
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return Source(node, reason=f"{describe(node)} has attributes of its function, which a call alone knows")
    if node.op_type in _NORMAL:
        return Source(node, reason="draws Gaussian noise, which no threshold makes a mask of", kind="gaussian")
    if node.op_type == "Dropout":
        return _dropout(node, opset, constants, shapes)
    if node.op_type == "Bernoulli":
        return _bernoulli(node, constants, shapes)
    return _uniform(node, shapes)


def _uniform(node: ir.Node, shapes: Shapes) -> Source:
    if _generator(node) not in (_UNSPECIFIED, _PHILOX):
        return Source(node, reason=f"generator is {_generator(node)!r}, which nobody has defined")
    if _generator(node) == _PHILOX and "seed_int64" not in node.attributes:
        return Source(node, reason=f"generator is {_PHILOX!r}, and its seed_int64 is missing")
    dims: Dims | ShapeOf | None
    notes: tuple[str, ...] = ()
    if node.op_type == "RandomUniform":
        dims = tuple(node.attributes.get_ints("shape", ()))
    elif node.op_type == "RandomUniformLike":
        dims = None if node.inputs[0] is None else shapes.of(node.inputs[0])
    else:
        dims = shapes.like(node.inputs[0])
        notes = (f"{node.op_type} is no ONNX operator and its key and counter are constants: the file is invalid",)
    if dims is None:
        return Source(node, reason="the shape of the draw could not be derived", notes=notes)
    low, high = node.attributes.get_float("low", 0.0), node.attributes.get_float("high", 1.0)
    dtype = _float_type(node)
    draw = Curve(line(low, high - low), Layout(dims, dims), dtype)
    return Source(node, {node.outputs[0]: draw}, notes=notes)


def _float_type(node: ir.Node) -> np.dtype[Any]:
    code = node.attributes.get_int("dtype", 0)
    if code:
        return ir.DataType(code).numpy()
    if node.op_type == "RandomUniformLike":
        return dtype_of(node.inputs[0]) or np.dtype(np.float32)
    return np.dtype(np.float32)


def _bernoulli(node: ir.Node, constants: Constants, shapes: Shapes) -> Source:
    probability, template = constants.number(node.inputs[0]), node.inputs[0]
    if probability is None or template is None:
        return Source(node, reason="Bernoulli's probability is not one constant number")
    kept = float(probability)
    if not 0.0 < kept < 1.0:
        return Source(node, reason=f"Bernoulli's probability is {kept:g}, so nothing is random")
    code = node.attributes.get_int("dtype", 0)
    dtype = ir.DataType(code).numpy() if code else probability.dtype
    dims = shapes.of(template)
    precision = half_ulp(probability.dtype)
    mask = TwoValued(1.0 - kept, np.zeros(2), np.array([0, 1], dtype), Layout(dims, dims), precision)
    note = f"ONNX Runtime's Bernoulli is inverted: it gives 1 with probability {1 - kept:g} where ONNX says {kept:g}"
    return Source(node, {node.outputs[0]: mask}, notes=(note,), by_definition=True)


def _dropout(node: ir.Node, opset: int, constants: Constants, shapes: Shapes) -> Source:
    data = node.inputs[0]
    ratio = _dropout_ratio(node, opset, constants)
    switch = node.inputs[2] if opset >= 12 and len(node.inputs) > 2 else None
    dynamic = switch if constants.array(switch) is None else None
    off = "" if dynamic is not None else switched_off(node, opset, constants)
    if data is None or ratio is None:
        return Source(node, reason="the ratio of this Dropout is not constant", kind="elementwise")
    used = any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:])
    if off and not used:
        return Source(node, reason=off, kind="elementwise", ratio=recover(float(ratio), half_ulp(ratio.dtype)))
    if not 0.0 < float(ratio) < 1.0:
        return Source(node, reason=f"the ratio is {float(ratio):g}, so nothing is random", kind="elementwise")
    dims = shapes.of(data)
    number = constants.number(data)
    dtype = number.dtype if number is not None else dtype_of(data) or np.dtype(np.float32)
    idle = bool(off) or (dynamic is not None and not constants.training)
    values = np.array([1.0, 1.0] if idle else [0.0, 1.0 / (1.0 - float(ratio))]).astype(dtype)
    layout, precision = Layout(dims, dims), half_ulp(ratio.dtype)
    bits = TwoValued(float(ratio), np.zeros(2), np.array([idle, True]), layout, precision)
    if number is None:
        x = ScaleChain(ViewedValue(data), ((ViewedValue(data), 1.0),))
        kept = TwoValued(float(ratio), values, np.zeros(2, dtype), layout, precision, x)
    else:
        kept = TwoValued(float(ratio), np.zeros(2), values * number, layout, precision)
    outputs = dict(zip(node.outputs, (kept, bits), strict=False))
    abstracts: dict[ir.Value, AbstractValue] = {
        value: abstract for value, abstract in outputs.items() if value.name != ""
    }
    return Source(node, abstracts, training_mode=dynamic, off=off, ratio=recover(float(ratio), precision))


def _dropout_ratio(node: ir.Node, opset: int, constants: Constants) -> np.generic | None:
    if opset < 12:
        return np.float32(node.attributes.get_float("ratio", 0.5))
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return np.float32(0.5)
    return constants.number(node.inputs[1])


def switched_off(node: ir.Node, opset: int, constants: Constants) -> str:
    """Return why this Dropout does nothing, "" where it is or may be active."""
    if opset < 7:
        active = not node.attributes.get_int("is_test", 0)
        return "" if active else f"{describe(node)} is off (is_test) and does nothing"
    if opset < 12:
        return f"Dropout of opset {opset} is always off: it does nothing"
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return "Dropout without training_mode is off: it does nothing"
    constant = constants.number(node.inputs[2])
    return "" if constant is None or bool(constant) else "Dropout with training_mode false is off: it does nothing"
