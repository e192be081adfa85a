"""Files that mean harm: one line that names the file, exit code 1, and nothing changed or left behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from building import dropout_model
from fuzz import contract
from onnx import TensorProto, helper

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main


def with_node(**changes: object) -> onnx.ModelProto:
    """A model whose one SpatialDropout node has the attributes ``changes``."""
    model = dropout_model()
    (node,) = model.graph.node
    for name, value in changes.items():
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return model


def with_initializer(**fields: object) -> onnx.ModelProto:
    model = dropout_model()
    tensor = TensorProto(**{"name": "bomb", "data_type": TensorProto.FLOAT, **fields})  # type: ignore[arg-type]
    model.graph.initializer.append(tensor)
    return model


def external(offset: int | str, length: int | str, location: str = "model.data") -> onnx.ModelProto:
    model = with_initializer(dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        model.graph.initializer[-1].external_data.add(key=key, value=str(value))
    return model


def cyclic() -> onnx.ModelProto:
    model = dropout_model(wrap=True)
    model.graph.node[0].input[0] = "dropped"
    return model


def twice(what: str) -> onnx.ModelProto:
    model = dropout_model(wrap=True)
    match what:
        case "output":
            model.graph.node.append(model.graph.node[0])
        case "input":
            model.graph.input.append(model.graph.input[0])
        case "initializer":
            model.graph.initializer.append(model.graph.initializer[0])
        case "domain":
            model.opset_import.add(domain="", version=11)
    return model


def recursive() -> onnx.ModelProto:
    """The function a calls b, and b calls a."""
    model = dropout_model()
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    for name, other in (("a", "b"), ("b", "a")):
        call = helper.make_node(other, ["i"], ["o"], domain="f")
        model.functions.append(helper.make_function("f", name, ["i"], ["o"], [call], imports))
    model.opset_import.append(imports[1])
    return model


def invalid_utf8() -> bytes:
    return dropout_model(wrap=True).SerializeToString().replace(b"before_out", b"before_\xff\xfe\xff")


CASES: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "empty": (lambda: b"", "is not an ONNX model (it imports no operator set and has no nodes)"),
    "text": (lambda: b"import torch\n" * 50, "is not a readable ONNX model"),
    "truncated": (lambda: dropout_model().SerializeToString()[:-40], "is not a readable ONNX model"),
    "bits flipped": (lambda: bytes(255 - byte for byte in dropout_model().SerializeToString()), "is not a readable"),
    "cycle": (cyclic, "node 'before' reads 'dropped', which nothing before it computes"),
    "output twice": (lambda: twice("output"), "node 'before' defines 'before_out', which is defined already"),
    "input twice": (lambda: twice("input"), "an input defines 'x', which is defined already"),
    "initializer twice": (lambda: twice("initializer"), "initializer 'training_mode' is there twice"),
    "two opsets": (lambda: twice("domain"), "it imports 'ai.onnx' in the versions 18 and 11"),
    "recursive function": (recursive, "the function f::a calls itself"),
    "not UTF-8": (invalid_utf8, "is not UTF-8"),
    "rng is not UTF-8": (lambda: with_node(rng=b"\xff"), "attribute 'rng' of node 'drop' is not UTF-8"),
    "huge dims": (lambda: with_initializer(dims=[2**40, 2]), "holds 0 entries in place of 2199023255552"),
    "huge raw dims": (lambda: with_initializer(dims=[2**40], raw_data=b"1234"), "holds 4 bytes in place of 439804651"),
    "overflowing dims": (lambda: with_initializer(dims=[2**40] * 3), "which no memory holds"),
    "negative dims": (lambda: with_initializer(dims=[-1]), "initializer 'bomb' has the dims [-1]"),
    "unknown type": (lambda: with_initializer(dims=[0], data_type=99), "has elements of the unknown type 99"),
    "huge offset": (
        lambda: external(2**62, 16),
        "ends at byte 4611686018427387920 of 'model.data', which has 64 bytes",
    ),
    "huge length": (lambda: external(0, 2**62), "ends at byte 4611686018427387904 of 'model.data'"),
    "negative offset": (lambda: external(-8, 16), "initializer 'bomb' has external data with the offset '-8'"),
    "short length": (lambda: external(0, 1), "tensor 'bomb' of 16 bytes is said to be 1 bytes in 'model.data'"),
    "nowhere": (lambda: external(0, 16, ""), "has external data, and does not say in which file"),
    "no number": (lambda: external("zero", 16), "initializer 'bomb' has external data with the offset 'zero'"),
    "missing data": (lambda: external(0, 16, "gone.data"), "its data file 'gone.data' is missing"),
    "outside": (lambda: external(0, 16, "../model.data"), "is stored in '../model.data', outside the model's folder"),
    "absolute": (lambda: external(0, 16, "/etc/passwd"), "is stored in '/etc/passwd', outside the model's folder"),
    "device": (lambda: external(0, 16, "/dev/zero"), "is stored in '/dev/zero', outside the model's folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_verb_refuses_in_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = CASES[case]
    made = make()
    file = tmp_path / "model.onnx"
    file.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    (tmp_path / "model.data").write_bytes(b"\0" * 64)
    for verb in (*contract.READING, *contract.REWRITING):
        assert contract.breach(verb, file) == ""
    code = main(["assign-seeds", str(file)])
    told = capsys.readouterr().err
    assert code == 1
    assert f"onnx-spatialdrop: {file}: " in told
    assert message in told
    data_finding = case in ("missing data", "huge offset", "huge length", "short length")
    outside = case in ("outside", "absolute", "device")
    assert main(["check", str(file)]) == (3 if data_finding or outside else 1)  # check says so in a finding


NODES = {
    "ratio is INTS": ({"ratio": [1]}, "node 'drop': attribute ratio is of type INTS; it must be FLOAT"),
    "ratio is 2": ({"ratio": 2.0}, "ratio is 2.0"),
    "axes is a string": ({"axes": "2"}, "attribute axes is of type STRING; it must be INTS"),
    "rng is unknown": ({"rng": "dice"}, "rng is 'dice'"),
    "axes repeat": ({"axes": [2, 2]}, "axes"),
}


@pytest.mark.parametrize("case", NODES)
def test_wrong_attributes_are_named(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, message = NODES[case]
    file = tmp_path / "model.onnx"
    file.write_bytes(with_node(**changes).SerializeToString())
    for verb in (*contract.READING, *contract.REWRITING):
        assert contract.breach(verb, file) == ""
    assert main(["attach", str(file)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"onnx-spatialdrop: {file}: ")
    assert message in told


def test_what_is_new_to_us_passes_through(tmp_path: Path) -> None:
    """IR versions and opsets from the future, string and quantised tensors: not our business."""
    model = dropout_model(wrap=True)
    model.ir_version = 99
    model.opset_import.add(domain="com.example", version=1000)
    strings = helper.make_tensor("s", TensorProto.STRING, [2], [b"\xff\xfe", b"b"])
    four = onnx.numpy_helper.from_array(np.arange(5, dtype=np.int8), "q")
    four = helper.make_tensor("q", TensorProto.INT4, [5], np.array([1, -2, 3, 4, 5]))
    model.graph.initializer.extend([strings, four])
    model.graph.quantization_annotation.add(tensor_name="y")
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    for verb in (*contract.READING, *contract.REWRITING):
        assert contract.breach(verb, file) == ""
    out = onnx.load(sd.remove(file, tmp_path / "out.onnx"))
    assert out.ir_version == 99
    assert next(t for t in out.graph.initializer if t.name == "s").string_data == [b"\xff\xfe", b"b"]
    assert [t for t in out.graph.initializer if t.name == "q"] == [four]


@pytest.mark.parametrize("depth", [30, 200, 10_000])
def test_nested_subgraphs(depth: int, tmp_path: Path) -> None:
    """Protobuf reads 33 levels or so; what it does not read is refused, in one line."""
    y = helper.make_empty_tensor_value_info("y")
    content = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [y]).SerializeToString()

    def field(number: int, body: bytes) -> bytes:
        size, head = len(body), bytearray([number << 3 | 2])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes([*head, size]) + body

    for _ in range(depth):
        attribute = field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, content)
        node = field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute)
        content = field(1, node) + field(2, b"g") + field(12, y.SerializeToString())
    graph = content + field(11, helper.make_tensor_value_info("x", 1, [1]).SerializeToString())
    graph += field(11, helper.make_tensor_value_info("c", 9, []).SerializeToString())
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\x08\x09" + field(7, graph) + field(8, helper.make_opsetid("", 18).SerializeToString()))
    for verb in (*contract.READING, *contract.REWRITING):
        assert contract.breach(verb, file) == ""
    assert main(["assign-seeds", str(file)]) == (0 if depth == 30 else 1)


def test_a_model_nested_deeply_in_memory_is_refused() -> None:
    model = dropout_model()
    top = model.graph
    for _ in range(2000):
        attribute = top.node.add(op_type="If").attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        top = attribute.g
        top.name = "g"
    with pytest.raises(sd.ModelFileError, match="nested too deeply|cannot be"):
        sd.remove(model)


def test_what_the_short_way_leaves_alone_is_checked_all_the_same(tmp_path: Path) -> None:
    """to-inference on the bytes wrote a graph with such a name, and nobody could read it again."""
    node, value = helper.make_node("Relu", ["x"], ["y"]), helper.make_tensor_value_info
    pad = helper.make_node("AutoPad", ["x"], ["z"], mode="edge")
    graph = helper.make_graph([node, pad], "main_graph", [value("x", 1, [1])], [value("y", 1, [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    for old in (b"main_graph", b"edge"):
        file = tmp_path / "model.onnx"
        file.write_bytes(model.replace(old, b"\xff" + old[1:]))
        assert contract.breach(("to-inference",), file) == ""
        assert main(["to-inference", str(file)]) == 1
