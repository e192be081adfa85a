"""Models in and out: weights unread, files whole or untouched, faults in one line."""

import os
import re
from pathlib import Path

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writing_is_atomic_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(sd.ModelFileError, match=re.escape(f"{file}: cannot be written: No space left on device")):
        sd.save(dropout_ir(), file)
    assert listing(tmp_path) == {"model.onnx": b"old"}


def test_the_mode_of_a_replaced_file_is_kept(tmp_path: Path) -> None:
    file = sd.save(dropout_ir(), tmp_path / "model.onnx")
    file.chmod(0o640)
    sd.save(dropout_ir(), file)
    assert file.stat().st_mode & 0o777 == 0o640


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    first = sd.attach(dropout_model(), tmp_path / "a.onnx").read_bytes()
    assert first == sd.attach(dropout_model(), tmp_path / "b.onnx").read_bytes()


def test_the_order_of_maps_in_a_proto_does_not_reach_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX's schema has no map fields today; the day it has, this keeps equal models equal bytes."""
    asked: list[bool] = []
    write = onnx.ModelProto.SerializeToString

    class Recorded:
        def __init__(self, proto: onnx.ModelProto) -> None:
            self.proto = proto

        def SerializeToString(self, deterministic: bool = False) -> bytes:
            asked.append(deterministic)
            return write(self.proto, deterministic=deterministic)

    to_proto = ir.to_proto
    monkeypatch.setattr(ir, "to_proto", lambda model: Recorded(to_proto(model)))
    sd.save(dropout_ir(), tmp_path / "model.onnx")
    assert asked == [True]


def test_a_path_gives_a_model_and_with_output_the_path(tmp_path: Path) -> None:
    file = sd.save(dropout_model(), tmp_path / "model.onnx")
    assert isinstance(sd.remove(file), ir.Model)
    assert isinstance(sd.remove(os.fspath(file)), ir.Model)
    assert sd.remove(file, tmp_path / "out.onnx") == tmp_path / "out.onnx"
    assert sd.remove(dropout_model(), tmp_path / "out2.onnx") == tmp_path / "out2.onnx"
    assert len(sd.find(file)) == 1
    assert sd.find(tmp_path / "out.onnx") == sd.find(tmp_path / "out2.onnx") == []


def test_something_else_than_a_model_is_refused() -> None:
    with pytest.raises(TypeError, match="model must be a path, an onnx.ModelProto or an onnx_ir.Model, not int"):
        sd.remove(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff\xff", "is not a readable ONNX model"),
        (b"", "is not an ONNX model (it imports no operator set and has no nodes)"),
        (b"not a model at all", "is not a readable ONNX model"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(sd.ModelFileError, match=re.escape(f"{file}: {message}")) as caught:
        sd.load(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(sd.ModelFileError, match="none.onnx: cannot be read: No such file or directory"):
        sd.load(tmp_path / "none.onnx")


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(sd.ModelFileError, match=r"no/such/out.onnx: cannot be written: No such file or directory"):
        sd.save(dropout_ir(), tmp_path / "no" / "such" / "out.onnx")


def test_what_onnx_ir_would_lose_is_refused() -> None:
    model = dropout_model()
    model.graph.sparse_initializer.add().dims.extend([3])
    with pytest.raises(
        sd.ModelFileError, match="the model: holds sparse initializers, which onnx_ir would lose; write th"
    ):
        sd.remove(model)
    model = dropout_model()
    model.training_info.add()
    with pytest.raises(
        sd.ModelFileError, match="the model: holds training_info, which onnx_ir would lose; take it out"
    ):
        sd.remove(model)


def test_metadata_of_tensors_in_attributes_is_not_doubled() -> None:
    head = '<ir_version: 10, opset_import: ["": 20, "own": 1]> g (float[N] x, bool c) => (float[N] y)'
    inner = "t () => (float[1] a) { a = Constant <value = float[1] {1.0}> () }"
    model = onnx.parser.parse_model(
        f"{head} {{ k = Constant <value = float[1] {{2.0}}> () b = If (c) <then_branch = {inner}, "
        f"else_branch = {inner}> d = own.F (x) e = Mul (k, b) y = Mul (d, e) }}"
        ' <domain: "own", opset_import: ["": 20]> F (x) => (y) '
        "{ k = Constant <value = float[1] {3.0}> () y = Mul (x, k) }"
    )
    branch = model.graph.node[1].attribute[0].g
    tensors = [nodes[0].attribute[0].t for nodes in (model.graph.node, branch.node, model.functions[0].node)]
    for tensor in tensors:
        tensor.metadata_props.add(key="made by", value="hand")
    got = sd.assign_seeds(sd.assign_seeds(model))
    branch = got.graph.node[1].attribute[0].g
    again = [nodes[0].attribute[0].t for nodes in (got.graph.node, branch.node, got.functions[0].node)]
    assert [list(tensor.metadata_props) for tensor in again] == [list(tensor.metadata_props) for tensor in tensors]
