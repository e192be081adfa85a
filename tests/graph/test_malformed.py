"""Whose fault it is when reading a node fails: the node's, where its operator does not allow it; ours, elsewhere."""

from __future__ import annotations

from typing import Any

import onnx.parser
import onnx_ir as ir
import pytest

from onnx_spatialdrop.analysis import algebra
from onnx_spatialdrop.graph.malformed import MalformedNodeError, reading
from onnx_spatialdrop.passes.fuse.policy import run as fuse


def value(dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name="x", type=ir.TensorType(dtype))


def node(op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Node:
    return ir.node(op_type, list(inputs), attributes)


WRONG = {
    "an input too few": node("Add", value()),
    "an input too many": node("Relu", value(), value()),
    "no input where one is needed": node("Add", value(), None),
    "an attribute of another kind": node("Transpose", value(), perm="0123"),
    "an attribute that is missing": node("Cast", value()),
    "a type that it does not take": node("Log", value(ir.DataType.STRING)),
    "an operator that ONNX does not have": node("Tangle", value()),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError])
def test_nodes_that_their_operator_does_not_allow_are_at_fault(wrong: str, error: type[Exception]) -> None:
    with pytest.raises(MalformedNodeError), reading(WRONG[wrong]):
        raise error("reading failed")


RIGHT = {
    "of today": node("Relu", value()),
    "of an old version": node("Unsqueeze", value(), axes=[0]),
    "with inputs left out": node("Clip", value(), None, value()),
    "of unknown types": node("Add", ir.Value(name="a"), ir.Value(name="b")),
}


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError])
def test_a_slip_of_ours_is_raised_as_it_is(right: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="a slip"), reading(RIGHT[right]):
        raise error("a slip")


@pytest.mark.parametrize("error", [IndexError, ValueError, OverflowError])
def test_numbers_that_do_not_fit_are_the_nodes(error: type[Exception]) -> None:
    with pytest.raises(MalformedNodeError), reading(RIGHT["of today"]):
        raise error("an axis beyond the rank")


def test_a_missing_row_of_a_table_does_not_read_as_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def slip(*_: Any) -> None:
        raise KeyError("Less")

    text = """<ir_version: 10, opset_import: ["" : 18]> g (float[2,4] x) => (float[2,4] y) {
        u = RandomUniformLike (x)  k = Constant <value_float = 0.5> ()  b = Less (u, k)
        m = Cast <to = 1> (b)  s = Div (m, k)  y = Mul (x, s) }"""
    monkeypatch.setattr(algebra, "evaluate", slip)
    with pytest.raises(KeyError):
        fuse(onnx.parser.parse_model(text))
