"""The table of operators: complete, and each fact checked against onnx: its schemas, and its reference evaluator."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx.helper
import onnx.reference
import onnx_ir as ir
import pytest

from onnx_spatialdrop.graph import ops
from onnx_spatialdrop.graph.ops import NO_FACTS, OPERATORS, Fact

SCHEMAS = {s.name: onnx.defs.get_schema(s.name) for s in onnx.defs.get_all_schemas() if s.domain == ""}
#: Where functions are compared: both signs, beyond every default threshold, no ties of rounding, no poles.
ENTRIES = np.array([-4.2, -1.7, -0.6, -0.3, 0.2, 0.45, 0.8, 1.3, 2.7, 6.1])
UNIT = np.array([0.05, 0.2, 0.45, 0.7, 0.95])
ABOVE = np.array([1.05, 1.3, 2.7, 6.1])
DOMAIN = {"Acos": UNIT, "Asin": UNIT, "Atanh": UNIT, "Acosh": ABOVE, "Log": ABOVE, "Sqrt": ABOVE, "Pow": ABOVE}
LOGICAL = ("And", "Or", "Xor", "Not")


def evaluate(op_type: str, *arrays: np.ndarray, **attributes: float) -> np.ndarray:
    names = [f"x{index}" for index in range(len(arrays))]
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    node = onnx.helper.make_node(op_type, names, ["y"], **attributes)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", inputs, [output]))
    return onnx.reference.ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]


def test_every_operator_of_onnx_is_a_row_or_said_to_have_no_facts() -> None:
    assert OPERATORS.keys() & NO_FACTS == set()
    assert set(SCHEMAS) - OPERATORS.keys() - NO_FACTS == set()
    assert (OPERATORS.keys() | NO_FACTS) - set(SCHEMAS) == set()


def test_rows_are_in_order_and_say_something() -> None:
    assert list(OPERATORS) == sorted(OPERATORS)
    assert all(row.facts for row in OPERATORS.values())


@pytest.mark.parametrize("name", OPERATORS)
def test_types_are_those_of_the_schema(name: str) -> None:
    schema, facts = SCHEMAS[name], OPERATORS[name].facts
    outputs = schema.outputs[0].types
    assert (Fact.BOOLEAN in facts) == (outputs == {"tensor(bool)"})
    if Fact.TYPE in facts:
        assert schema.inputs[0].type_str == schema.outputs[0].type_str or Fact.BOOLEAN in facts


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.function is not None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_are_those_of_onnx(name: str, dtype: type) -> None:
    row = OPERATORS[name]
    assert row.function is not None
    a = DOMAIN.get(name, ENTRIES).astype(dtype)
    b = np.roll(a, 3)
    arrays = (a,) if Fact.ENTRY in row.facts else (a > 0, a, b) if name == "Where" else (a, b)
    if name in LOGICAL:
        arrays = tuple(array > 0 for array in arrays)
    expected = evaluate(name, *arrays)
    got = np.asarray(row.function(*arrays, *(default for _, default in row.parameters)))
    np.testing.assert_allclose(got.astype(expected.dtype), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        (name, {key: 0.6 * value + 0.13 for key, value in row.parameters})
        for name, row in OPERATORS.items()
        if row.parameters
    ],
)
def test_parameters_are_attributes(name: str, attributes: dict[str, float]) -> None:
    node = ir.node(name, [ir.Value(name="x")], attributes)
    function = ops.entry_function(node)
    assert function is not None
    got = function(ENTRIES, *ops.parameters(node))
    np.testing.assert_allclose(got, evaluate(name, ENTRIES, **attributes), rtol=1e-5, atol=1e-6)


def test_an_attribute_that_is_not_known_leaves_no_function() -> None:
    x = ir.Value(name="x")
    assert ops.entry_function(ir.node("Gelu", [x])) is not None
    assert ops.entry_function(ir.node("Gelu", [x], {"approximate": "none"})) is not None
    assert ops.entry_function(ir.node("Gelu", [x], {"approximate": "tanh"})) is None
    assert ops.entry_function(ir.node("Add", [x, x], {"axis": 1})) is None  # how opset 6 broadcast


@pytest.mark.parametrize("name", [n for n, row in OPERATORS.items() if Fact.SCALE in row.facts and row.function])
def test_positive_factors_pass(name: str) -> None:
    row = OPERATORS[name]
    assert row.function is not None
    defaults = [default for _, default in row.parameters]
    np.testing.assert_allclose(row.function(2.5 * ENTRIES, *defaults), 2.5 * row.function(ENTRIES, *defaults))


def test_positive_factors_of_all_inputs_pass() -> None:
    for name in ("Add", "Max", "Min", "Sub"):
        function = OPERATORS[name].function
        assert function is not None
        np.testing.assert_allclose(function(2.5 * ENTRIES, 5.0), 2.5 * function(ENTRIES, 2.0))
    assert all(Fact.SCALES not in OPERATORS[name].facts for name in ("Mul", "Div", "Pow"))


def test_whole_numbers_are_divided_towards_zero() -> None:
    a, b = np.array([7, -7, 7, -7, 6, -6]), np.array([2, 2, -2, -2, 3, 3])
    function = OPERATORS["Div"].function
    assert function is not None
    np.testing.assert_array_equal(function(a, b), [3, -3, -3, 3, 2, -2])


def test_bfloat16_is_no_whole_number() -> None:
    function = OPERATORS["Div"].function
    assert function is not None
    assert float(function(np.ones((), ml_dtypes.bfloat16), ml_dtypes.bfloat16(0.1))) == 10.0


def test_other_domains_have_no_facts() -> None:
    assert ops.operator(ir.node("Relu", [ir.Value(name="x")], domain="own")).facts is Fact.NONE
