"""Columns say of a file what its nodes say one after the other; what is refused with them is refused without."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import helper

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage.columns import of_body, of_file
from onnx_spatialdrop.storage.wellformed import refuse_malformed

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "models").glob("*.onnx"), *(ROOT / "tests" / "data").rglob("*.onnx")])


def test_columns_are_what_the_nodes_say() -> None:
    seen = 0
    for file in FILES:
        content = file.read_bytes()
        model = onnx.ModelProto.FromString(content)
        found = of_file(content, model)
        bodies = [model.graph, *model.functions]
        if found is None or any(b"" in of_body(each.node, each.value_info).attributes for each in bodies):
            continue
        seen += 1
        assert found == [of_body(each.node, each.value_info) for each in bodies], file.name
    assert seen > 50


def _verdict(model: onnx.ModelProto, content: bytes | None) -> object:
    try:
        survey = refuse_malformed(model, "m", ("Dropout",), content)
    except ModelFileError as error:
        return str(error)
    return survey.operators, survey.metadata, survey.external, [block.wanted for block in survey.blocks]


def test_a_file_with_wrong_bytes_is_judged_alike_with_and_without_them() -> None:
    draw = random.Random(5)
    files = [content for content in map(Path.read_bytes, FILES) if len(content) < 20_000]
    judged = []
    for _ in range(300):
        content = bytearray(draw.choice(files))
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.choice((*range(0x0A, 0x80, 8), draw.randrange(256)))
        try:
            model = onnx.ModelProto.FromString(bytes(content))
        except DecodeError:
            continue
        judged.append(_verdict(model, None))
        assert _verdict(model, bytes(content)) == judged[-1]
    assert 50 < sum(isinstance(verdict, str) for verdict in judged) < len(judged) - 10


def _chain(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    last = helper.make_node("Relu", [nodes[-1].output[0]], ["y"])
    graph = helper.make_graph([*nodes, last], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def _relu(**changes: object) -> onnx.NodeProto:
    node = helper.make_node("Relu", ["x"], ["a"], name="n")
    for name, value in changes.items():
        if isinstance(value, list):
            getattr(node, name).extend(value)
        else:
            setattr(node, name, value)
    return node


_ENTRY = onnx.StringStringEntryProto(key="k", value="v")
_WRONG = {
    "an attribute twice": _relu(attribute=[helper.make_attribute("a", 1), helper.make_attribute("a", 2)]),
    "an attribute without a name": _relu(attribute=[onnx.AttributeProto(type=2, i=1)]),
    "an attribute that is too large to be a column": _relu(attribute=[onnx.AttributeProto(name="a", s=b"x" * 2000)]),
    "metadata twice": _relu(metadata_props=[_ENTRY, _ENTRY]),
    "no operator": _relu(op_type=""),
    "a device without a name": _relu(device_configurations=[onnx.NodeDeviceConfigurationProto()]),
    "a text that is none": _relu(attribute=[onnx.AttributeProto(name="a", type=3, s=b"\xff")]),
}


@pytest.mark.parametrize("node", _WRONG.values(), ids=_WRONG)
def test_what_is_wrong_in_one_of_many_nodes_is_refused_in_the_same_words(node: onnx.NodeProto) -> None:
    fine = [helper.make_node("LeakyRelu", ["x"], [f"f{i}"], f"f{i}", alpha=i / 7) for i in range(40)]
    model = _chain([*fine, node])
    content = model.SerializeToString()
    assert of_file(content, model) is not None
    messages = []
    for given in (None, content):
        with pytest.raises(ModelFileError) as caught:
            refuse_malformed(model, "m", content=given)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
