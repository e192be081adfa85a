"""Axes are an attribute in old opsets and an input in newer ones; one function reads both."""

import numpy as np
import onnx_ir as ir
import pytest

from onnx_spatialdrop.graph.axes import axes_of, named_ints


def _node(op_type: str, inputs: list[ir.Value | None], **attributes: object) -> ir.Node:
    return ir.node(op_type, [ir.Value(name="x"), *inputs], attributes)  # type: ignore[arg-type]


def _constant(numbers: list[int]) -> ir.Value:
    return ir.Value(name="axes", const_value=ir.tensor(np.array(numbers, np.int64)))


def test_an_attribute_and_a_constant_input_say_the_same() -> None:
    assert axes_of(_node("Squeeze", [], axes=[0, -1])) == axes_of(_node("Squeeze", [_constant([0, -1])])) == [0, -1]


def test_an_attribute_may_be_empty_and_says_so() -> None:
    assert axes_of(_node("Squeeze", [], axes=[])) == []


@pytest.mark.parametrize("inputs", [[], [None], [ir.Value(name="computed")]])
def test_what_is_not_named_or_not_constant_is_not_known(inputs: list[ir.Value | None]) -> None:
    assert axes_of(_node("Squeeze", inputs)) is None


def test_the_caller_may_know_more_than_constants() -> None:
    node = _node("Pad", [ir.Value(name="computed")])
    assert named_ints(node, "pads", 1, lambda value: np.array([[1], [2]]) if value.name == "computed" else None) == [
        1,
        2,
    ]
