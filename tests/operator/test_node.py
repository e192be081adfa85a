"""Nodes from what people know about a layer, and back."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from building import dropout_ir

from onnx_spatialdrop import SpecError, spatial_dropout
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator import node as op


def value(rank: int | None, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(
        name="x", type=ir.TensorType(dtype), shape=None if rank is None else ir.Shape(["N", 8, 9, 10, 11][:rank])
    )


def build(x: ir.Value, rate: float = 0.5, **arguments: object) -> ir.Node:
    control_inputs = {"training_mode": ir.Value(name="t"), "step": ir.Value(name="s"), "seed": 1, "name": "d"}
    return spatial_dropout(x, rate, **(control_inputs | arguments))


@pytest.mark.parametrize(
    ("layer", "rank", "arguments", "axes"),
    [
        ("Keras SpatialDropout1D", 3, {"data_format": "channels_last"}, (1,)),
        ("Keras SpatialDropout2D", 4, {"data_format": "channels_last"}, (1, 2)),
        ("Keras SpatialDropout2D channels_first", 4, {"data_format": "channels_first"}, (2, 3)),
        ("Keras SpatialDropout3D", 5, {"data_format": "channels_last"}, (1, 2, 3)),
        ("Keras SpatialDropout3D channels_first", 5, {"data_format": "channels_first"}, (2, 3, 4)),
        ("Keras Dropout(noise_shape)", 4, {"noise_shape": (None, 1, 9, 1)}, (1, 3)),
        ("torch Dropout1d", 3, {}, (2,)),
        ("torch Dropout2d", 4, {"data_format": "NCHW"}, (2, 3)),
        ("torch Dropout3d", 5, {}, (2, 3, 4)),
        ("torch Dropout2d, unbatched", 3, {"axes": (1, 2)}, (1, 2)),
        ("MXNet Dropout(axes)", 4, {"axes": (0, -1)}, (0, 3)),
        ("element-wise", 4, {"axes": ()}, ()),
        ("of unknown rank", None, {"axes": (-1, -2)}, (-1, -2)),
    ],
)
def test_who_maps_to_what(layer: str, rank: int | None, arguments: dict, axes: tuple[int, ...]) -> None:
    assert op.read(build(value(rank), **arguments)).axes == axes, layer


def test_a_node_is_written_out_in_full() -> None:
    node = build(value(4), 0.3, seed=2**64 - 1)
    assert (node.domain, node.op_type, node.version) == ("onnx_spatialdrop", "SpatialDropout", 1)
    assert [v.name for v in node.inputs] == ["x", "t", "s"]
    assert set(node.attributes) == {"axes", "ratio", "seed", "scale", "rng", "strata"}
    assert op.read(node) == spec.Attributes((2, 3), 0.3, -1, spec.explicit_scale(0.3), "philox", 1, "node 'd'")
    y, mask = node.outputs
    assert y.dtype == ir.DataType.FLOAT
    assert list(y.shape) == list(node.inputs[0].shape)
    assert mask.dtype == ir.DataType.BOOL
    assert [str(dim) for dim in mask.shape] == ["N", "8", "1", "1"]


def test_the_ratio_is_the_one_that_gives_the_frameworks_threshold() -> None:
    rates = [k / 20000 for k in range(1, 20000)]
    rate = next(r for r in rates if dialects.ratio_for(r, "keras_jax", np.float32) != np.float32(r))
    assert op.read(build(value(4), rate, rng="keras_jax")).ratio == dialects.ratio_for(rate, "keras_jax", np.float32)
    assert op.read(build(value(4), rate)).ratio == float(np.float32(rate))


def test_a_type_that_a_dialect_lacks_is_refused() -> None:
    with pytest.raises(SpecError, match="node 'd': rng 'keras_tf' draws no masks for X of type float64"):
        build(value(4, ir.DataType.DOUBLE), rng="keras_tf")


def test_the_scale_is_rounded_to_the_type_of_x() -> None:
    assert op.read(build(value(4, ir.DataType.FLOAT16), 0.3)).scale == float(np.float16(1 / 0.7)) != 1 / 0.7


@pytest.mark.parametrize(
    ("rank", "arguments", "message"),
    [
        (2, {}, "node 'd': rank 2 has no spatial axes (samples and channels come first); give axes"),
        (None, {}, "node 'd': the rank of X is unknown, so data_format says nothing; give axes or noise_shape"),
        (4, {"data_format": "NHCW"}, "node 'd': data_format is 'NHCW'; allowed: channels_first, NCW, NCHW, NCDHW, "),
        (4, {"noise_shape": (1, 1)}, "node 'd': noise_shape (1, 1) has 2 entries; X has rank 4"),
        (4, {"noise_shape": (1,), "axes": (1,)}, "node 'd': axes and noise_shape say the same thing; give one of them"),
        (4, {"axes": (7,)}, "node 'd': axis 7 is out of range for rank 4; allowed: [-4, 3]"),
        (4, {"rate": 1.2}, "node 'd': rate is 1.2; it must lie in [0, 1]"),
    ],
)
def test_refused_layers(rank: int | None, arguments: dict, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        build(value(rank), **arguments)


def test_an_integer_input_is_refused() -> None:
    with pytest.raises(SpecError, match="X has type INT32; allowed: FLOAT16, BFLOAT16, FLOAT, DOUBLE"):
        build(value(4, ir.DataType.INT32))


@pytest.mark.parametrize("missing", ["axes", "ratio", "seed"])
def test_a_node_without_a_required_attribute_is_refused(missing: str) -> None:
    node = dropout_ir().graph[0]
    del node.attributes[missing]
    with pytest.raises(
        SpecError, match=f"node 'drop': attribute {missing} is missing; axes, ratio and seed are required"
    ):
        op.read(node)


def test_nodes_of_the_wrong_arity_are_refused() -> None:
    node = dropout_ir(mask=False).graph[0]
    node.resize_outputs(1)
    with pytest.raises(SpecError, match="SpatialDropout lists exactly two outputs, Y and the mask; name the mask"):
        op.read(node)
    node.resize_inputs(1)
    with pytest.raises(SpecError, match="takes exactly three inputs, X, training_mode and step"):
        op.read(node)


def test_a_rng_that_is_no_text_is_refused() -> None:
    node = dropout_ir().graph[0]
    node.attributes["rng"] = ir.Attr("rng", ir.AttributeType.STRING, b"\xff")
    with pytest.raises(SpecError, match=re.escape("node 'drop': rng is \"b'\\\\xff'\"; this version knows")):
        op.read(node)
