"""External data: found, checked, left where it is or copied, and never in the way of another model."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop.storage import files


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights (2 tensors, one in a Constant node) lie in model.onnx.data beside it."""
    folder = tmp_path / "made"
    folder.mkdir()
    model = dropout_model(shape=("N", 4), axes=(), wrap=True)
    weight = onnx.numpy_helper.from_array(np.arange(4000, dtype=np.float32).reshape(1000, 4), "weight")
    model.graph.initializer.append(weight)
    model.graph.node.append(onnx.helper.make_node("Gather", ["weight", "index"], ["rows"], axis=0))
    index = onnx.numpy_helper.from_array(np.arange(500), "index_value")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["index"], value=index))
    model.graph.output.append(onnx.helper.make_tensor_value_info("rows", 1, [500, 4]))
    file = folder / "model.onnx"
    onnx.save(
        model, file, save_as_external_data=True, size_threshold=1000, convert_attribute=True, location="model.onnx.data"
    )
    return file


def rows(file: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    return session.run(["rows"], {"x": np.zeros((1, 4), np.float32)})[0]


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_in_the_same_folder_weights_stay_where_they_are(external: Path) -> None:
    before = (external.parent / "model.onnx.data").stat()
    sd.attach(external, external.with_name("attached.onnx"))
    assert sorted(listing(external.parent)) == ["attached.onnx", "model.onnx", "model.onnx.data"]
    after = (external.parent / "model.onnx.data").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert external.with_name("attached.onnx").stat().st_size < 10_000


def test_into_another_folder_weights_are_copied(external: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    model = sd.load(external)
    out = sd.save(sd.remove(model), tmp_path / "out.onnx", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20_000, 20_000)  # 1000 x 4 floats and 500 int64
    for file in external.parent.iterdir():
        file.unlink()
    np.testing.assert_array_equal(rows(out), np.arange(2000, dtype=np.float32).reshape(500, 4))
    model_file, data = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert model_file == "out.onnx"
    assert re.fullmatch(r"out\.onnx\.[0-9a-f]{16}\.data", data)


def test_saving_does_not_change_the_model_it_saves(external: Path, tmp_path: Path) -> None:
    model = sd.load(external)
    sd.save(model, tmp_path / "out.onnx")
    sd.save(model, external.with_name("again.onnx"))
    assert b"model.onnx.data" in external.with_name("again.onnx").read_bytes()


def test_a_relative_path_finds_its_weights_from_everywhere(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(external.parent)
    model = sd.load("model.onnx")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(model.graph.initializers["weight"].const_value.numpy()[1], [4, 5, 6, 7])


def test_a_failed_copy_of_weights_leaves_nothing_behind(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    model = sd.load(external)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(sd.ModelFileError, match="out.onnx: its weights cannot be written: No space left on device"):
        sd.save(model, out / "out.onnx")
    assert listing(out) == {}
    monkeypatch.undo()
    assert b"model.onnx.data" in sd.save(model, external.with_name("kept.onnx")).read_bytes()


def test_missing_and_truncated_weights_are_named(external: Path) -> None:
    data = external.parent / "model.onnx.data"
    with open(data, "r+b") as out:
        out.truncate(100)
    with pytest.raises(
        sd.ModelFileError, match=r"tensor '\w+' ends at byte \d+ of 'model.onnx.data', which has 100 bytes"
    ):
        sd.load(external)
    data.unlink()
    with pytest.raises(sd.ModelFileError, match="its data file 'model.onnx.data' is missing; put it beside the model"):
        sd.load(external)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_weights_outside_the_folder_are_refused(external: Path, location: str) -> None:
    (external.parent.parent / "secret").write_bytes(b"s" * 20_000)
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[-1].external_data:
        if entry.key == "location":
            entry.value = location
    external.write_bytes(model.SerializeToString())
    with pytest.raises(
        sd.ModelFileError, match=f"tensor 'weight' is stored in '{location}', outside the model's folder"
    ):
        sd.load(external)


def test_a_proto_whose_weights_are_elsewhere_is_not_written_without_them(external: Path, tmp_path: Path) -> None:
    """A ModelProto does not remember its folder, so its references would dangle."""
    proto = onnx.load(external, load_external_data=False)
    with pytest.raises(
        sd.ModelFileError, match=r"refers to 'model.onnx.data', which is not in .*; read it with onnx_sp"
    ):
        sd.remove(proto, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
    assert sd.remove(proto, external.with_name("beside.onnx")).exists()


def test_metadata_of_initializers_is_not_doubled(external: Path) -> None:
    model = onnx.load(external)
    entry = model.graph.initializer[-1].metadata_props.add()
    entry.key, entry.value = "made", "by hand"
    got = sd.remove(sd.remove(model))
    assert [list(i.metadata_props) for i in got.graph.initializer if i.name == "weight"] == [[entry]]


def test_weights_that_are_there_already_are_used_and_others_of_that_name_left_alone(
    external: Path, tmp_path: Path
) -> None:
    out = sd.remove(external, tmp_path / "out.onnx")
    (data,) = tmp_path.glob("out.onnx.*.data")
    first, stamp = out.read_bytes(), data.stat().st_ino
    assert sd.remove(external, out).read_bytes() == first
    assert data.stat().st_ino == stamp
    data.write_bytes(b"somebody else's")
    sd.remove(external, out)
    assert data.read_bytes() == b"somebody else's"
    np.testing.assert_array_equal(rows(out)[1], [4, 5, 6, 7])
    assert [path.name for path in tmp_path.glob("out*.1.data")] == [f"{data.name.removesuffix('.data')}.1.data"]


def test_weights_are_not_replaced_under_another_model_and_what_stays_is_named(
    external: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = sd.remove(external, tmp_path / "out.onnx")
    (data,) = tmp_path.glob("out.onnx.*.data")
    sharing = sd.attach(out, tmp_path / "sharing.onnx")  # in the same folder, and so with the same data
    before = rows(sharing)
    retrained = onnx.load(external)
    retrained.graph.initializer[-1].CopyFrom(
        onnx.numpy_helper.from_array(np.full((1000, 4), 7, np.float32), retrained.graph.initializer[-1].name)
    )
    onnx.save(retrained, external, save_as_external_data=True, size_threshold=1000, location="model.onnx.data")
    with caplog.at_level("INFO", "onnx_spatialdrop"):
        sd.remove(external, out)
    np.testing.assert_array_equal(rows(out), np.full((500, 4), 7))
    np.testing.assert_array_equal(rows(sharing), before)
    assert caplog.messages == [f"{out}: weights of the model that was there stay in {data.name}"]


def test_the_weights_may_be_read_by_whom_the_model_that_was_there_may(external: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    sd.save(dropout_ir(), out).chmod(0o600)
    sd.remove(external, out)
    (data,) = tmp_path.glob("out.onnx.*.data")
    assert (out.stat().st_mode & 0o777, data.stat().st_mode & 0o777) == (0o600, 0o600)


def test_a_file_system_without_links_gets_its_weights_all_the_same(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files, "_unnamed", lambda _: None)
    monkeypatch.setattr(os, "link", refuse)
    out = sd.remove(external, tmp_path / "out.onnx")
    np.testing.assert_array_equal(rows(out)[1], [4, 5, 6, 7])
    assert len(list(tmp_path.glob("*.data"))) == 1
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_model_is_not_replaced_when_its_weights_cannot_be(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = sd.remove(external, tmp_path / "out.onnx")
    before = out.read_bytes()
    (data,) = tmp_path.glob("out.onnx.*.data")
    data.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(sd.ModelFileError, match="out.onnx: cannot be written: Permission denied"):
        sd.remove(external, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.onnx"]


def test_copied_weights_start_on_a_page(external: Path, tmp_path: Path) -> None:
    out = sd.remove(external, tmp_path / "out.onnx")
    (offset,) = (
        int(e.value)
        for e in onnx.load(out, load_external_data=False).graph.initializer[-1].external_data
        if e.key == "offset"
    )
    assert offset % 4096 == 0


def test_external_lists_of_tensors_are_refused(external: Path) -> None:
    model = onnx.load(external, load_external_data=False)
    attribute = model.graph.node[0].attribute.add(name="many", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.add().CopyFrom(model.graph.initializer[-1])
    external.write_bytes(model.SerializeToString())
    with pytest.raises(
        sd.ModelFileError, match="attribute 'many' of node .* is a list of tensors with external data, which"
    ):
        sd.load(external)
