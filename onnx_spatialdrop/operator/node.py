"""Build SpatialDropout nodes in onnx_ir from what people know about a layer, and read them back.

Nothing here walks a graph: where a node goes is the passes' business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator.attributes import Given, checked

__all__ = [
    "DATA_FORMATS",
    "FLOAT_TYPES",
    "complete",
    "describe",
    "is_spatial_dropout",
    "numpy_dtype",
    "read",
    "shared_axes",
    "spatial_dropout",
    "write",
]

#: The types T of X, as onnx_ir names them.
FLOAT_TYPES: Final = {
    ir.DataType.FLOAT16: spec.DTYPES["float16"],
    ir.DataType.BFLOAT16: spec.DTYPES["bfloat16"],
    ir.DataType.FLOAT: spec.DTYPES["float32"],
    ir.DataType.DOUBLE: spec.DTYPES["float64"],
}

_LAST: Final = ("channels_last", "NWC", "NHWC", "NDHWC")
_FIRST: Final = ("channels_first", "NCW", "NCHW", "NCDHW")
DATA_FORMATS: Final = _FIRST + _LAST


def shared_axes(
    rank: int | None = None,
    *,
    axes: Sequence[int] | None = None,
    noise_shape: Sequence[int | None] | None = None,
    data_format: str = "channels_first",
    shape: Sequence[object] | ir.Shape | None = None,
    where: str = "SpatialDropout",
) -> tuple[int, ...]:
    """Return the axes along which one mask entry is shared.

    Args:
        rank: the rank of X; needed unless ``axes`` is given.
        axes: the axes themselves, as in MXNet's Dropout or Flax's ``broadcast_dims``.
        noise_shape: the mask's shape as Keras's Dropout takes it: 1 marks a shared axis, None a full one.
        data_format: "channels_first" (also "NCW", "NCHW", "NCDHW"), ONNX's own layout and the default: every axis from
            2 on is shared; or "channels_last" (also "NWC", "NHWC", "NDHWC"), Keras's default: every axis but the
            first and the last. Keras's SpatialDropout1D is always channels_last. Unused beside axes or noise_shape.
        shape: the dimensions of X where they are known: those that are numbers have to fit ``noise_shape``.
        where: who asks, for error messages.

    Raises:
        TypeError: an argument of the wrong kind.
        SpecError: contradictory or impossible arguments.
    """
    arguments.choice(data_format, f"{where}: data_format", DATA_FORMATS)
    if axes is not None:
        if noise_shape is not None:
            raise SpecError(f"{where}: axes and noise_shape say the same thing; give one of them")
        axes = arguments.integers(axes, f"{where}: axes")
        return spec.normalize_axes(axes, rank, where) if rank is not None else axes
    if noise_shape is not None:
        noise_shape = arguments.noise_shape(noise_shape, f"{where}: noise_shape")
        if rank is not None and len(noise_shape) != rank:
            raise SpecError(f"{where}: noise_shape {noise_shape} has {len(noise_shape)} entries; X has rank {rank}")
        for axis, (size, dim) in enumerate(zip(noise_shape, shape or (), strict=False)):
            if size not in (None, 1, dim) and isinstance(dim, int):
                raise SpecError(
                    f"{where}: noise_shape[{axis}] is {size}; X has {dim} there, so it must be 1, {dim} or None"
                )
        return tuple(axis for axis, size in enumerate(noise_shape) if size == 1)
    if rank is None:
        raise SpecError(f"{where}: the rank of X is unknown, so data_format says nothing; give axes or noise_shape")
    if rank < 3:
        raise SpecError(f"{where}: rank {rank} has no spatial axes (samples and channels come first); give axes")
    if data_format in _FIRST:
        return tuple(range(2, rank))
    return tuple(range(1, rank - 1))


def spatial_dropout(
    x: ir.Value,
    rate: float,
    *,
    training_mode: ir.Value,
    step: ir.Value,
    seed: int,
    axes: Sequence[int] | None = None,
    noise_shape: Sequence[int | None] | None = None,
    data_format: str = "channels_first",
    scale: float | None = None,
    rng: str = "philox",
    strata: int = 1,
    name: str | None = None,
) -> ir.Node:
    """Build a SpatialDropout node; put it into a graph with ``graph.append`` or ``graph.insert_after``.

    Args:
        x: the tensor to drop from; its type and shape, where known, are used and copied to the outputs.
        rate: fraction dropped, in [0, 1], as the user gave it (a double). The node stores float32(rate), or for
            keras_jax the float32 beside it that gives the framework's threshold.
        training_mode: bool, one element.
        step: int64, one element or one a sample.
        seed: 64-bit key, in [-2**63, 2**64); unique unless two nodes are tied on purpose.
        axes: see shared_axes; so are ``noise_shape`` and ``data_format``.
        noise_shape: Keras's Dropout(noise_shape=...).
        data_format: "channels_first" (default) or "channels_last"; the layer is 1D, 2D or 3D by the rank of ``x``.
        scale: what kept values are multiplied by, finite and 0 or more; by default 1 / (1 - rate), rounded to the type
            of ``x``.
        rng: the generator of the mask, one of spec.RNGS.
        strata: over how many steps the draws are balanced: 1, none, or a prime number from 3 to 127 with "philox".
        name: the node's name.

    Returns:
        A node with all inputs, attributes and outputs written out; ``outputs[0]`` is Y, ``outputs[1]`` the mask.

    Raises:
        TypeError: an argument of the wrong kind.
        SpecError: an argument outside those ranges, or ``x`` of a type that is unsupported, or that ``rng`` draws no
            masks for.
    """
    for argument, value in (("x", x), ("training_mode", training_mode), ("step", step)):
        arguments.instance(value, argument, ir.Value, "an onnx_ir.Value")
    name = None if name is None else arguments.string(name, "name")
    where = f"node {name!r}" if name else "SpatialDropout"
    rate = arguments.fraction(rate, f"{where}: rate")
    seed = arguments.seed(seed, f"{where}: seed")
    scale = None if scale is None else arguments.factor(scale, f"{where}: scale")
    rng = arguments.choice(rng, f"{where}: rng", spec.RNGS)
    strata = arguments.integer(strata, f"{where}: strata")
    rank = None if x.shape is None else len(x.shape)
    if x.dtype is not None and x.dtype not in FLOAT_TYPES:
        raise SpecError(f"{where}: X has type {x.dtype.name}; allowed: {', '.join(t.name for t in FLOAT_TYPES)}")
    shared = shared_axes(rank, axes=axes, noise_shape=noise_shape, data_format=data_format, shape=x.shape, where=where)
    if scale is None:
        scale = spec.explicit_scale(rate, FLOAT_TYPES[x.dtype] if x.dtype is not None else None)
    attributes = spec.Attributes(shared, rate, seed, scale, rng, strata, where)
    _check_type(x, attributes)
    dtype = FLOAT_TYPES[x.dtype] if x.dtype is not None else spec.DTYPES["float32"]
    attributes = dataclasses.replace(attributes, ratio=dialects.ratio_for(rate, rng, dtype, where))
    node = ir.Node(spec.DOMAIN, spec.OP_TYPE, [x, training_mode, step], num_outputs=2, name=name, version=spec.VERSION)
    write(node, attributes)
    y, mask = node.outputs
    y.type, y.shape = x.type, x.shape
    mask.type = ir.TensorType(ir.DataType.BOOL)
    if x.shape is not None:
        mask.shape = ir.Shape([1 if axis in shared else dim for axis, dim in enumerate(x.shape)])
    return node


def write(node: ir.Node, attributes: spec.Attributes) -> None:
    """Write all attributes to ``node``, in place."""
    for attribute in (
        ir.AttrInt64s("axes", attributes.axes),
        ir.AttrFloat32("ratio", attributes.ratio),
        ir.AttrInt64("seed", attributes.seed),
        ir.AttrFloat32("scale", attributes.scale),
        ir.AttrString("rng", attributes.rng),
        ir.AttrInt64("strata", attributes.strata),
    ):
        node.attributes[attribute.name] = attribute


def read(node: ir.Node) -> spec.Attributes:
    """Return the checked attributes of a SpatialDropout node.

    Raises:
        SpecError: a missing or impossible attribute, inputs and outputs other than 3 and 2, or an X of a type that the
            node's ``rng`` draws no masks for.
    """
    x = node.inputs[0] if node.inputs else None
    given = {
        key: Given(int(attribute.type), attribute.value, attribute.ref_attr_name or "")
        for key, attribute in node.attributes.items()
    }
    present = [value is not None for value in node.inputs]
    return checked(describe(node), present, len(node.outputs), given, None if x is None else numpy_dtype(x))


def _check_type(x: ir.Value | None, attributes: spec.Attributes) -> None:
    dtype = None if x is None else numpy_dtype(x)
    if dtype is not None:
        dialects.word_test(attributes.rng, dtype, attributes.where)


def complete(node: ir.Node) -> None:
    """Make a SpatialDropout node list its mask under a name, in place.

    onnx_ir leaves trailing outputs without a name out of the file, and ONNX Runtime refuses a call that lists fewer
    outputs than the function has.
    """
    if len(node.outputs) == 1:
        node.resize_outputs(2)
    if len(node.outputs) == 2 and not node.outputs[1].name and node.outputs[0].name:
        node.outputs[1].name = f"{node.outputs[0].name}/mask"


def is_spatial_dropout(node: ir.Node) -> bool:
    """Return whether ``node`` is a SpatialDropout node."""
    return node.domain == spec.DOMAIN and node.op_type == spec.OP_TYPE


def describe(node: ir.Node) -> str:
    """Return how error messages name ``node``: by its name, or by its first output where it has none."""
    if node.name:
        return f"node {node.name!r}"
    return (
        f"the {node.op_type} node that computes {node.outputs[0].name!r}" if node.outputs else f"a {node.op_type} node"
    )


def numpy_dtype(value: ir.Value) -> np.dtype[Any] | None:
    """Return the NumPy type of a value of one of the operator's types; None for an unknown or another type."""
    return FLOAT_TYPES.get(value.dtype) if value.dtype is not None else None
