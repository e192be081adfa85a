"""What ops on small integer tensors do to sizes: to numbers as onnx does it, and kept where a size is open."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.reference
import onnx_ir as ir
import pytest

from onnx_spatialdrop.analysis.dim_algebra import DimOf, OpaqueDim, times
from onnx_spatialdrop.analysis.shape_values import RULES, objects

X = ir.Value(name="x")
N, C = DimOf(X, 0), DimOf(X, 1)


def rule(op_type: str, *arrays: Any, outputs: int = 1, **attributes: Any) -> Any:
    values = [ir.Value(name=f"x{index}") for index in range(len(arrays))]
    node = ir.node(op_type, values, attributes, num_outputs=outputs)
    return RULES[op_type](node, [None if array is None else np.asarray(array, object) for array in arrays])


def by_onnx(op_type: str, *arrays: Any, **attributes: Any) -> np.ndarray:
    names = [f"x{index}" for index in range(len(arrays))]
    given = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
    kind = onnx.helper.np_dtype_to_tensor_dtype
    inputs = [onnx.helper.make_tensor_value_info(name, kind(a.dtype), a.shape) for name, a in given.items()]
    node = onnx.helper.make_node(op_type, names, ["y"], **attributes)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, None)
    graph = onnx.helper.make_graph([node], "g", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    return onnx.reference.ReferenceEvaluator(model).run(None, given)[0]


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Concat", [[2, 3], [4]], {"axis": 0}),
    ("Slice", [[5, 6, 7, 8], [1], [3]], {}),
    ("Slice", [[5, 6, 7, 8], [-2], [2**40], [0]], {}),
    ("Slice", [[5, 6, 7, 8], [3], [0], [0], [-1]], {}),
    ("Gather", [[5, 6, 7], [2, 0]], {"axis": 0}),
    ("Gather", [[5, 6, 7], 1], {"axis": 0}),
    ("Unsqueeze", [5, [0]], {}),
    ("Squeeze", [[5], [0]], {}),
    ("Reshape", [[1, 2, 3, 4], [2, -1]], {}),
    ("Expand", [[7], [3]], {}),
    ("Add", [[1, 2], [3, 4]], {}),
    ("Sub", [[5, 2], 1], {}),
    ("Mul", [[5, 2], [2, 3]], {}),
    ("Div", [[6, 7], [2, 2]], {}),
    ("Max", [[6, 1], [2, 2]], {}),
    ("Min", [[6, 1], [2, 2]], {}),
    ("ReduceProd", [[2, 3, 4]], {"keepdims": 0}),
    ("ReduceMax", [[2, 3, 4]], {}),
    ("ReduceSum", [[2, 3, 4], [0]], {}),
    ("Range", [2, 8, 3], {}),
    ("Pad", [[4, 5], [1, 2], 1], {}),
    ("Equal", [[1, 2], [1, 3]], {}),
    ("Where", [[True, False], [1, 2], [3, 4]], {}),
    ("ScatterElements", [[1, 2, 3], [1], [9]], {}),
    ("Size", [[4, 5, 6]], {}),
]


@pytest.mark.parametrize(("op_type", "arrays", "attributes"), CASES, ids=lambda case: str(case))
def test_numbers_come_out_as_onnx_computes_them(op_type: str, arrays: list[Any], attributes: dict[str, Any]) -> None:
    got, expected = rule(op_type, *arrays, **attributes), by_onnx(op_type, *arrays, **attributes)
    assert got.shape == expected.shape
    assert got.reshape(-1).tolist() == expected.reshape(-1).tolist()


def test_sizes_are_carried_along() -> None:
    assert rule("Concat", objects([N]), [1, 1], axis=0).tolist() == [N, 1, 1]
    assert rule("Gather", objects([N, C, 5]), [1], axis=0).tolist() == [C]
    assert rule("Mul", objects([N]), objects([C])).tolist() == [times(N, C)]
    assert rule("Div", objects([times(4, N)]), [2]).tolist() == [times(2, N)]
    assert rule("Add", objects([N, C]), [0, 0]).tolist() == [N, C]


def test_what_is_not_followed_is_a_size_of_its_own() -> None:
    (unknown,) = rule("Add", objects([N]), [1]).tolist()
    assert isinstance(unknown, OpaqueDim)


def test_a_size_is_never_negative() -> None:
    assert rule("Equal", objects([N]), [-1]).tolist() == [False]
    with pytest.raises(ValueError, match="not known"):
        rule("Equal", objects([N]), [3])


def test_splits_give_an_array_an_output() -> None:
    assert [part.tolist() for part in rule("Split", objects([N, C, 5]), [2, 1], outputs=2)] == [[N, C], [5]]
