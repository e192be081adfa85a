"""Equal graphs in different orders, with different counters, become equal bytes."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from onnx_spatialdrop.export.canonical import canonicalize


def graph(order: tuple[int, ...], counter: int) -> onnx.ModelProto:
    """max(x + 1, x * 2) and a Loop of three rounds behind it, ordered and named as a careless exporter does it."""
    one, two, low, inner = (f"{base}__{counter + i}" for i, base in enumerate(("const", "const", "low", "inner")))
    info = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["state", one], [f"{inner}:0"], inner)],
        "body",
        [info("i", 7, []), info("go", 9, []), info("state", 1, [f"unk__{counter + 9}"])],
        [info("go", 9, []), info(f"{inner}:0", 1, [f"unk__{counter + 9}"])],
    )
    nodes = [
        onnx.helper.make_node("Add", ["x", one], [f"{low}:0"], low),
        onnx.helper.make_node("Mul", ["x", two], ["named:0"], "named"),
        onnx.helper.make_node("Max", [f"{low}:0", "named:0"], ["max"], "max"),
        onnx.helper.make_node("Loop", ["rounds", "", "max"], ["y"], "loop", body=body),
    ]
    constants = {one: np.float32([1]), two: np.float32([2]), "rounds": np.array(3)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            [nodes[i] for i in order] + nodes[2:],
            "g",
            [info("x", 1, [f"unk__{counter + 9}"])],
            [info("y", 1, [f"unk__{counter + 9}"])],
            tensors if counter % 2 else tensors[::-1],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )


def canonical(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(proto.SerializeToString())  # onnx_ir renames tensors in the proto they came from
    model = ir.from_proto(copy)
    canonicalize(model)
    return ir.to_proto(model)


def test_order_and_counters_leave_no_trace() -> None:
    spelled = {
        canonical(graph(order, counter)).SerializeToString(deterministic=True)
        for order, counter in itertools.product(((0, 1), (1, 0)), (3, 40))
    }
    assert len(spelled) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_computed_stays_and_so_do_the_names_that_no_counter_made(order: tuple[int, ...]) -> None:
    proto = graph(order, 7)
    made = canonical(proto)
    onnx.checker.check_model(made, full_check=True)
    x = np.float32([-3, 0.25, 4])
    (expected,), (got,) = (onnx.reference.ReferenceEvaluator(m).run(None, {"x": x}) for m in (proto, made))
    np.testing.assert_array_equal(got, expected)
    assert {"named", "max", "loop"} <= {node.name for node in made.graph.node}
    assert [made.graph.input[0].name, made.graph.output[0].name] == ["x", "y"]


def test_a_new_name_may_be_the_old_one_of_another_constant() -> None:
    info = onnx.helper.make_tensor_value_info
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Add", ["x", "const__2"], ["sum__9"], "add__9"),
                onnx.helper.make_node("Mul", ["sum__9", "const__1"], ["y__1"], "mul__8"),
            ],
            "g",
            [info("x", 1, [3])],
            [info("y__1", 1, [3])],
            [onnx.numpy_helper.from_array(np.float32([number]), f"const__{number}") for number in (1, 2)],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    made = canonical(proto)
    onnx.checker.check_model(made, full_check=True)
    assert [node.output[0] for node in made.graph.node] == ["sum__3", "y__1"]  # the output keeps its number to itself
    assert {each.name for each in made.graph.initializer} == {"const__2", "const__4"}
    x = np.float32([-3, 0.25, 4])
    np.testing.assert_array_equal(onnx.reference.ReferenceEvaluator(made).run(None, {"x": x})[0], x + 2)
