"""The short way of to_inference: what it writes is what the long way writes, or it leaves the file to that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import dropout_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.passes.plain import plain_inference
from onnx_spatialdrop.passes.to_inference import InferencePass
from onnx_spatialdrop.storage import wire

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "models").glob("*.onnx"), *(ROOT / "tests" / "data").rglob("*.onnx")])


def canonical(model: ir.Model) -> bytes:
    return ir.to_proto(io.from_proto(ir.to_proto(model))).SerializeToString(deterministic=True)


def inference(content: bytes) -> tuple[bytes, int] | None:
    """Return what plain_inference writes, and its count."""
    found = plain_inference(content)
    return None if found is None else (b"".join(found[0]), found[1])


def compare(content: bytes) -> bool:
    """Run both ways and compare what they write; return whether there was a short way."""
    short = inference(content)
    if short is None:
        return False
    model = io.from_proto(onnx.ModelProto.FromString(content))  # whatever the short way takes, the long one must
    rewrite = InferencePass()
    rewrite.call(model)
    assert rewrite.report.refused == []
    assert short[1] == rewrite.removed
    written = io.from_proto(onnx.ModelProto.FromString(short[0]))
    assert canonical(written) == canonical(model)
    return True


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_every_recorded_file(file: Path) -> None:
    compare(file.read_bytes())


def test_it_is_taken_where_dropout_is_plain() -> None:
    taken = {file.stem for file in FILES if plain_inference(file.read_bytes()) is not None}
    assert {"digits_torch", "digits_float16"} <= taken
    assert {"digits_if", "digits_function", "digits_keras", "digits_external", "digits_torch_train_export"}.isdisjoint(
        taken
    )


_LIKE = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 4, "H", "W"])
_OPS = (
    *("Relu", "Sigmoid", "Add", "Mul", "Transpose", "Conv", "Identity", "scale", "mask_like"),
    *("spatial",) * 6,
    *("off", "off_true", "on", "on_mask", "input", "ratio_half"),
)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A graph of up to 12 nodes, in which each reads one of those before it."""
    opset = draw(st.sampled_from((6, 11, 13, 18, 21)))
    typed = draw(st.sampled_from(("all", "none", "some")))
    switch = draw(st.sampled_from(("input", "constant", "node")))
    values, nodes, infos = ["x"], list[onnx.NodeProto](), list[onnx.ValueInfoProto]()
    if switch == "node":
        nodes.append(
            helper.make_node("Constant", [], ["training_mode"], value=numpy_helper.from_array(np.array(False)))
        )
    for index, kind in enumerate(draw(st.lists(st.sampled_from(_OPS), min_size=1, max_size=12))):
        x, y, name = draw(st.sampled_from(values[-3:])), f"v{index}", f"n{index}"
        nodes.append(_node(kind, x, y, draw(st.sampled_from(values)), index, opset))
        nodes[-1].name = name
        if typed == "all" or (typed == "some" and draw(st.booleans())):
            infos.append(onnx.ValueInfoProto(name=y, type=_LIKE))
            if kind == "spatial" and draw(st.booleans()):
                infos.append(helper.make_tensor_value_info(f"{y}/mask", TensorProto.BOOL, ["N", 4, 1, 1]))
        values.append(y)
    outputs = {values[-1], *draw(st.lists(st.sampled_from(values[1:]), max_size=2))}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "H", "W"])]
    step = numpy_helper.from_array(np.array([-1]), "step")
    initializers = [
        step,
        numpy_helper.from_array(np.array(0.25, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(False), "false"),
        numpy_helper.from_array(np.float32(np.arange(64) % 5).reshape(1, 4, 4, 4), "table"),
        numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "kernel"),
    ]
    if switch != "node":
        initializers.append(numpy_helper.from_array(np.array(False), "training_mode"))
    if switch == "input":
        inputs.append(helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []))
        inputs.append(helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]))
    if draw(st.booleans()):
        read = {name for node in nodes for name in node.input}
        initializers = [tensor for tensor in initializers if tensor.name in read or switch == "input"]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [onnx.ValueInfoProto(name=name, type=_LIKE) for name in sorted(outputs)],
        initializers,
        value_info=[info for info in infos if info.name not in outputs],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("onnx_spatialdrop", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=draw(st.sampled_from((3, 8, 10))))


def _node(kind: str, x: str, y: str, other: str, index: int, opset: int) -> onnx.NodeProto:
    match kind:
        case "spatial":
            given = {"axes": [2, 3], "ratio": 0.25, "seed": index * 2**40 - 5, "scale": 4 / 3, "rng": "philox"}
            inputs, outputs = [x, "training_mode", "step"], [y, f"{y}/mask"]
            return helper.make_node("SpatialDropout", inputs, outputs, domain="onnx_spatialdrop", **given)
        case "off" | "off_true" | "on" | "input" | "on_mask" | "ratio_half" if opset < 12:
            return helper.make_node("Dropout", [x], [y, f"{y}/kept"] if kind == "on_mask" else [y], ratio=0.5)
        case "off":
            return helper.make_node("Dropout", [x], [y])
        case "off_true":
            return helper.make_node("Dropout", [x, "ratio", "false"], [y])
        case "on":
            return helper.make_node("Dropout", [x, "ratio", "true"], [y])
        case "on_mask":
            return helper.make_node("Dropout", [x, "ratio", "true"], [y, f"{y}/kept"])
        case "ratio_half":
            return helper.make_node("Dropout", [x, "", "true"], [y])
        case "input":
            return helper.make_node("Dropout", [x, "ratio", "training_mode"], [y])
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


@settings(max_examples=150, derandomize=True, deadline=None)
@given(models())
def test_on_random_graphs(model: onnx.ModelProto) -> None:
    compare(model.SerializeToString())


def test_the_function_takes_it_from_path_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sd.save(dropout_model(wrap=True, mask=False), tmp_path / "model.onnx")
    monkeypatch.setattr(InferencePass, "call", lambda *_: pytest.fail("the long way was gone"))
    assert sd.to_inference(file, tmp_path / "out.onnx") == tmp_path / "out.onnx"
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Abs", "Neg"]


def test_equal_input_gives_equal_bytes() -> None:
    content = dropout_model(wrap=True, mask=False).SerializeToString()
    assert inference(content) == inference(content) is not None


def test_a_thousand_fields_are_no_hang() -> None:
    """A node of very many fields would cost a round of the table each."""
    node = helper.make_node("Concat", ["x"] * 5000, ["v"], axis=0)
    model = dropout_model(wrap=True, mask=False)
    model.graph.node.append(node)
    assert plain_inference(model.SerializeToString()) is None


def test_names_whose_length_takes_more_bytes_than_it_has_to_are_left_to_the_long_way() -> None:
    """Protobuf takes them; a name that is replaced would leave half of its head behind."""
    content = dropout_model(wrap=True, mask=False).SerializeToString()
    model = onnx.ModelProto.FromString(content)
    reader = model.graph.node[-1]
    node, name = reader.SerializeToString(), reader.input[0].encode()
    long = node.replace(bytes((10, len(name))) + name, bytes((10, len(name) | 0x80, 0)) + name, 1)
    head = bytes((10, len(node)))
    graph = model.graph.SerializeToString().replace(head + node, bytes((10, len(long))) + long, 1)
    rest = onnx.ModelProto.FromString(content)
    rest.ClearField("graph")
    odd = rest.SerializeToString() + b":" + wire.varint(len(graph)) + graph
    assert onnx.ModelProto.FromString(odd) == model
    assert plain_inference(content) is not None
    assert plain_inference(odd) is None


def test_an_attribute_that_is_there_twice_is_seen_whatever_comes_first_in_it() -> None:
    model = dropout_model(wrap=True, mask=False)
    content = model.graph.node[0].SerializeToString()
    given = helper.make_attribute("alpha", 1.0).SerializeToString()
    name = b"\n\x05alpha"
    assert given.startswith(name)
    for second in (given, given.removeprefix(name) + name):
        node = content + b"".join(b"*" + bytes((len(each),)) + each for each in (given, second))
        model.graph.node[0].ParseFromString(node)
        assert len(model.graph.node[0].attribute) == 2
        raw = onnx.ModelProto.FromString(model.SerializeToString())
        raw.graph.ClearField("node")
        nodes = [node, *(each.SerializeToString() for each in model.graph.node[1:])]
        graph = b"".join(b"\n" + wire.varint(len(each)) + each for each in nodes) + raw.graph.SerializeToString()
        raw.ClearField("graph")
        assert plain_inference(raw.SerializeToString() + b":" + wire.varint(len(graph)) + graph) is None
