"""Small models that hold SpatialDropout nodes, for all tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop.graph.controls import add_switches
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

#: Three nodes: x -> conv -> h -> y.
NETWORK = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,2,4,4] x) => (float[N,3,4,4] y)
<float[3,2,1,1] w = {1., -2., 3., 4., -5., 6.}, float[N,3,4,4] conv, float[N,3,4,4] h>
{
  conv = Conv (x, w)
  h = Relu (conv)
  y = Sigmoid (h)
}
"""
IR_TYPES = {str(dtype): name for name, dtype in op.FLOAT_TYPES.items()}


def dropout_ir(
    dtype: str = "float32",
    shape: Sequence[int | str | None] = ("N", 4, "H", "W"),
    axes: Sequence[int] = (2, 3),
    ratio: float = 0.3,
    seed: int = 7,
    scale: float | None = None,
    opset: int = 18,
    training_mode: bool | None = None,
    step: Sequence[int] | None = None,
    mask: bool = True,
    wrap: bool = False,
    rng: str = "philox",
    strata: int = 1,
) -> ir.Model:
    """Return a model ``x -> SpatialDropout -> y, mask``.

    ``training_mode`` and ``step`` None are switches, values are initializers; ``wrap`` puts an Abs before the node and
    a Neg after it, since optimisers treat nodes at the edge of a graph differently.
    """
    x = ir.val("x", dtype=IR_TYPES[dtype], shape=list(shape))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": opset, spec.DOMAIN: 1}, name="g")
    switches = list(add_switches(graph)) if training_mode is None or step is None else [None, None]
    for index, (name, constant) in enumerate((("training_mode", training_mode), ("step", step))):
        if constant is not None:
            if switches[index] is not None:
                graph.inputs.remove(switches[index])
                del graph.initializers[name]
            array = np.array(constant) if name == "training_mode" else np.array(constant, np.int64)
            switches[index] = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            switches[index].type = ir.TensorType(switches[index].const_value.dtype)
            switches[index].shape = ir.Shape(array.shape)
            graph.register_initializer(switches[index])
    source = x
    if wrap:
        graph.append(ir.node("Abs", [x], name="before"))
        source = graph[-1].outputs[0]
        source.name, source.type, source.shape = "before_out", x.type, x.shape
    node = op.spatial_dropout(
        source,
        ratio,
        training_mode=switches[0],
        step=switches[1],
        seed=seed,
        axes=axes,
        scale=scale,
        rng=rng,
        strata=strata,
        name="drop",
    )
    graph.append(node)
    y = node.outputs[0]
    y.name, node.outputs[1].name = "y", "mask"
    if wrap:
        y.name = "dropped"
        graph.append(ir.node("Neg", [y], name="after"))
        y = graph[-1].outputs[0]
        y.name, y.type, y.shape = "y", x.type, x.shape
    graph.outputs.append(y)
    if mask:
        graph.outputs.append(node.outputs[1])
    return ir.Model(graph, ir_version=9)


def dropout_model(**arguments: Any) -> onnx.ModelProto:
    """Return dropout_ir's model as a proto."""
    return ir.to_proto(dropout_ir(**arguments))


def bits(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array as unsigned integers, so that NaNs and signed zeros compare."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}") if array.ndim else array.reshape(1).view("u1")


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Compare type, shape and every bit, but for the payload of NaNs."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(bits(got)[~nan], bits(expected)[~nan])
