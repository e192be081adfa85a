"""Random graphs whose dropout is nodes: SpatialDropout and Dropout of every kind, in subgraphs and functions, too."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

__all__ = ["models"]

_LIKE = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 4, "H", "W"])
_OPS = (
    *("Relu", "Sigmoid", "Add", "Mul", "Transpose", "Conv", "Identity", "scale", "mask_like", "If", "call", "norm"),
    *("spatial",) * 6,
    *("off", "off_true", "on", "on_mask", "input", "ratio_half", "ratio_0", "ratio_1"),
)
_DROPOUTS = ("off", "off_true", "on", "on_mask", "input", "ratio_half", "ratio_0", "ratio_1")


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A graph of up to 12 nodes, in which each reads one of those before it."""
    opset = draw(st.sampled_from((6, 8, 9, 11, 13, 18, 21)))
    typed = draw(st.sampled_from(("all", "none", "some")))
    switch = draw(st.sampled_from(("input", "constant", "node")))
    values, nodes, infos = ["x"], list[onnx.NodeProto](), list[onnx.ValueInfoProto]()
    if switch == "node":
        nodes.append(
            helper.make_node("Constant", [], ["training_mode"], value=numpy_helper.from_array(np.array(False)))
        )
    masks = list[str]()
    for index, kind in enumerate(draw(st.lists(st.sampled_from(_OPS), min_size=1, max_size=12))):
        x, y, name = draw(st.sampled_from(values[-3:])), f"v{index}", f"n{index}"
        nodes.append(_node(kind, x, y, draw(st.sampled_from(values)), index, opset))
        nodes[-1].name = name
        if typed == "all" or (typed == "some" and draw(st.booleans())):
            infos.append(onnx.ValueInfoProto(name=y, type=_LIKE))
            if kind == "spatial" and draw(st.booleans()):
                infos.append(helper.make_tensor_value_info(f"{y}/mask", TensorProto.BOOL, ["N", 4, 1, 1]))
        if len(nodes[-1].output) > 1 and draw(st.integers(0, 3)) == 0:
            masks.append(nodes[-1].output[1])
        values.append(y)
    outputs = {values[-1], *draw(st.lists(st.sampled_from(values[1:]), max_size=2))}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "H", "W"])]
    initializers = [
        numpy_helper.from_array(np.array([-1]), "step"),
        numpy_helper.from_array(np.array(0.25, np.float32), "ratio"),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
        numpy_helper.from_array(np.array(1.0, np.float32), "one"),
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(False), "false"),
        numpy_helper.from_array(np.float32(np.arange(64) % 5).reshape(1, 4, 4, 4), "table"),
        numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "kernel"),
        numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), "channels"),
    ]
    if switch != "node":
        initializers.append(numpy_helper.from_array(np.array(False), "training_mode"))
    if switch == "input":
        inputs.append(helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []))
        inputs.append(helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]))
    if draw(st.booleans()):
        read = {name for node in nodes for name in node.input}
        initializers = [tensor for tensor in initializers if tensor.name in read or switch == "input"]
        initializers = [tensor for tensor in initializers if tensor.name != "training_mode" or switch != "node"]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [*(onnx.ValueInfoProto(name=name, type=_LIKE) for name in sorted(outputs)), *map(_untyped, masks)],
        initializers,
        value_info=[info for info in infos if info.name not in outputs],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("onnx_spatialdrop", 1), helper.make_opsetid("f", 1)]
    functions = [_function(opset)] if any(node.domain == "f" for node in nodes) else []
    version = draw(st.sampled_from((3, 8, 10)))
    return helper.make_model(graph, opset_imports=imports, ir_version=version, functions=functions)


def _untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name)


def _function(opset: int) -> onnx.FunctionProto:
    given = {"axes": [2, 3], "ratio": 0.25, "seed": 3, "scale": 4 / 3, "rng": "philox"}
    nodes = [
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("SpatialDropout", ["b", "t", "s"], ["c", "m"], domain="onnx_spatialdrop", **given),
        _node("ratio_half" if opset >= 12 else "off", "c", "d", "c", 0, opset),
        helper.make_node("Relu", ["d"], ["e"]),
    ]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = "t" if name == "true" else name
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("onnx_spatialdrop", 1)]
    return helper.make_function("f", "block", ["a", "t", "s"], ["e"], nodes, imports)


def _node(kind: str, x: str, y: str, other: str, index: int, opset: int) -> onnx.NodeProto:
    match kind:
        case "spatial":
            given = {"axes": [2, 3], "ratio": 0.25, "seed": index * 2**40 - 5, "scale": 4 / 3, "rng": "philox"}
            inputs, outputs = [x, "training_mode", "step"], [y, f"{y}/mask"]
            return helper.make_node("SpatialDropout", inputs, outputs, domain="onnx_spatialdrop", **given)
        case _ if kind in _DROPOUTS and opset < 12:
            return helper.make_node("Dropout", [x], [y, f"{y}/kept"] if kind == "on_mask" else [y], ratio=0.5)
        case "off":
            return helper.make_node("Dropout", [x], [y])
        case "off_true":
            return helper.make_node("Dropout", [x, "ratio", "false"], [y])
        case "on" | "on_mask":
            outputs = [y, f"{y}/kept"] if kind == "on_mask" else [y]
            return helper.make_node("Dropout", [x, "ratio", "true"], outputs)
        case "ratio_half":
            return helper.make_node("Dropout", [x, "", "true"], [y])
        case "ratio_0" | "ratio_1":
            return helper.make_node("Dropout", [x, "zero" if kind == "ratio_0" else "one", "true"], [y])
        case "input":
            return helper.make_node("Dropout", [x, "ratio", "training_mode"], [y])
        case "norm":
            outputs = [y, f"{y}/mean", f"{y}/var"]
            given = {"training_mode": 1} if opset >= 14 else {}
            return helper.make_node("BatchNormalization", [x, *["channels"] * 4], outputs, **given)
        case "If":
            branches = []
            for role, inner, last in (("then", "spatial", "Neg"), ("else", "off", "Abs")):
                result = onnx.ValueInfoProto(name=f"{y}/{role}", type=_LIKE)
                held = [_node(inner, x, f"{y}/{role}/a", x, index + 50, opset)]
                held.append(helper.make_node(last, [f"{y}/{role}/a"], [result.name]))
                branches.append(helper.make_graph(held, role, [], [result]))
            return helper.make_node("If", ["false"], [y], then_branch=branches[0], else_branch=branches[1])
        case "call":
            return helper.make_node("block", [x, "training_mode", "step"], [y], domain="f")
        case "Transpose":
            return helper.make_node("Transpose", [x], [y], perm=[0, 1, 3, 2])
        case "Conv":
            return helper.make_node("Conv", [x, "kernel"], [y])
        case "scale":
            return helper.make_node("Mul", [x, "ratio"], [y])
        case "mask_like":
            return helper.make_node("Mul", [x, "table"], [y])
        case "Add" | "Mul":
            return helper.make_node(kind, [x, other], [y])
        case _:
            return helper.make_node(kind, [x], [y])
