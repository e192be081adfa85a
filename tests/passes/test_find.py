"""What find tells of each node."""

import json

import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd


def test_switches_types_and_shapes_are_told() -> None:
    (found,) = sd.find(dropout_model(dtype="float16", seed=2**64 - 1))
    assert (found.name, found.axes, found.seed, found.rng) == ("drop", (2, 3), -1, "philox")
    assert found.ratio == pytest.approx(0.3)
    assert (found.dtype, found.shape) == ("float16", ("N", 4, "H", "W"))
    assert found.training_mode == "switch training_mode (false)"
    assert found.step == "switch step (-1)"
    assert (found.scope, found.mask_used) == ("", True)
    json.dumps(found.as_dict())


def test_constants_are_told_from_switches() -> None:
    (found,) = sd.find(dropout_model(training_mode=True, step=[1, 2], mask=False))
    assert (found.training_mode, found.step, found.mask_used) == ("constant true", "constant [1, 2]", False)


def test_the_node_of_an_ir_model_can_be_changed() -> None:
    model = dropout_ir()
    sd.find(model)[0].node.name = "renamed"
    assert sd.find(model)[0].name == "renamed"


def test_an_unknown_type_is_none_and_not_float64() -> None:
    model = dropout_ir(wrap=True)
    value = next(node for node in model.graph if node.op_type == "SpatialDropout").inputs[0]
    assert value is not None
    value.type = None
    assert [found.dtype for found in sd.find(model)] == [None]


def test_an_unknown_type_is_none() -> None:
    """NumPy takes None for float64 in comparisons."""
    model = dropout_ir(wrap=True)
    model.graph[0].outputs[0].type = None
    assert sd.find(model)[0].dtype is None
