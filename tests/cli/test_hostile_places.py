"""Where files are read and written: pipes, devices, links, full disks, signals; nothing is lost or left behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from building import dropout_ir, dropout_model
from fuzz import contract

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main

VERBS = ("inspect", "check", "fuse", "to-inference", "attach", "detach", "expand", "assign-seeds")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_spatialdrop", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class TestInputs:
    @pytest.mark.parametrize("verb", VERBS)
    def test_special_files_are_not_opened(self, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pipe, door = tmp_path / "pipe.onnx", tmp_path / "socket.onnx"
        os.mkfifo(pipe)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(door))
            for file, kind in ((pipe, "no regular file"), (door, "no regular file"), (tmp_path, "a folder")):
                with contract.limited(3):
                    assert main([verb, str(file)]) == 1
                assert capsys.readouterr().err == f"onnx-spatialdrop: {file}: cannot be read: it is {kind}\n"

    def test_too_large_a_file_is_not_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "large.onnx"
        with open(file, "wb") as out:
            out.truncate(1 << 40)
        assert main(["inspect", str(file)]) == 1
        assert "1099511627776 bytes are more than protobuf holds" in capsys.readouterr().err

    def test_a_file_that_may_not_be_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = sd.save(dropout_ir(), tmp_path / "model.onnx")
        file.chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)  # root may read everything
        try:
            assert main(["inspect", str(file)]) == 1
        finally:
            os.seteuid(user)
        assert capsys.readouterr().err == f"onnx-spatialdrop: {file}: cannot be read: Permission denied\n"

    def test_names_that_are_not_utf8(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.onnx")
        sd.save(dropout_model(), tmp_path / "model.onnx").rename(name)
        for verb in contract.READING:
            assert main([verb[0], name, *verb[1:]]) in (0, 3)
            told = capsys.readouterr()
            assert told.err == ""
            assert "\x1b" not in told.out
        assert main(["inspect", name + "x"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
        done = run("attach", name)
        assert done.returncode == 0
        assert "udcff" in done.stderr
        assert run("inspect", "--json", name).stdout.encode()

    def test_names_that_steer_a_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        evil = "n\x1b]0;x\x07\u202e\x9b\nfused 'forged': spatial"
        model = onnx.parser.parse_model(
            '<ir_version: 9, opset_import: ["": 13]> g (float[2,3] x) => (float[2,3] y) '
            "{ [n] y0 = Dropout (x, r, t) y = Neg (y0) }"
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.3), "r"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "t"))
        model.graph.node[0].name = evil
        for value in (model.graph.node[0].output, model.graph.node[1].input):
            value[0] = evil
        file = tmp_path / "model.onnx"
        file.write_bytes(model.SerializeToString())
        fused = tmp_path / "fused.onnx"
        assert main(["fuse", "--elementwise", str(file), str(fused)]) == 0
        told = []
        for verb in (*contract.READING, ("fuse", "--explain"), ("fuse", "--elementwise", "--explain")):
            for each in (file, fused):
                main([*verb[:1], str(each), *verb[1:]])
                told.append(capsys.readouterr())
        text = "".join(each.out + each.err for each in told)
        assert "\\x1b]0;x" in text
        assert not [char for char in text if not char.isprintable() and char != "\n"]
        assert "\nfused 'forged'" not in text


class TestOutputs:
    def test_the_output_may_be_the_input(self, tmp_path: Path) -> None:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        assert main(["to-inference", str(file), str(file)]) == 0
        assert sd.find(file) == []
        assert os.listdir(tmp_path) == ["model.onnx"]

    @pytest.mark.parametrize("verb", VERBS[2:])
    def test_only_files_are_replaced(self, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        folder, pipe = tmp_path / "folder", tmp_path / "pipe"
        folder.mkdir()
        os.mkfifo(pipe)
        for out, why in (
            (folder, "Is a directory"),
            (pipe, "it is a pipe"),
            (Path("/dev/null"), "it is a pipe, a dev"),
        ):
            before = out.stat()
            with contract.limited(3):
                assert main([verb, str(file), str(out)]) == 1
            assert f"{out}: cannot be written: {why}" in capsys.readouterr().err
            assert (out.stat().st_ino, out.stat().st_mode) == (before.st_ino, before.st_mode)
        assert sorted(os.listdir(tmp_path)) == ["folder", "model.onnx", "pipe"]
        assert os.listdir(folder) == []

    def test_a_link_is_replaced_and_what_it_points_to_stays(self, tmp_path: Path) -> None:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        before = file.read_bytes()
        link = tmp_path / "link.onnx"
        link.symlink_to(file)
        assert main(["to-inference", str(link), str(link)]) == 0
        assert file.read_bytes() == before
        assert not link.is_symlink()
        assert sd.find(link) == []

    def test_a_name_as_long_as_names_can_be(self, tmp_path: Path) -> None:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        out = tmp_path / ("n" * 250 + ".onnx")
        assert main(["attach", str(file), str(out)]) == 0
        assert sorted(os.listdir(tmp_path)) == ["model.onnx", out.name]

    @pytest.mark.parametrize("unnamed", [True, False])
    def test_a_full_disk(
        self, unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A limit on the size of files makes write(2) fail half way, as a full disk does."""
        import resource

        from onnx_spatialdrop.storage import files

        if not unnamed:
            monkeypatch.setattr(files, "_unnamed", lambda _: None)
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        out = tmp_path / "out.onnx"
        out.write_bytes(b"old")
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, old[1]))
        try:
            code = main(["attach", str(file), str(out)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert (code, out.read_bytes()) == (1, b"old")
        assert sorted(os.listdir(tmp_path)) == ["model.onnx", "out.onnx"]
        assert f"{out}: cannot be written: File too large" in capsys.readouterr().err

    def test_a_full_disk_under_stdout(self, tmp_path: Path) -> None:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "onnx_spatialdrop", "inspect", str(file)]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (
            1, f"onnx-spatialdrop: {file}: cannot write: No space left on device\n",
        )  # fmt: skip

    def test_a_closed_stdout_ends_quietly(self, tmp_path: Path) -> None:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
        for verb in (("inspect",), ("check", "--json")):
            arguments = [verb[0], str(file), *verb[1:]]
            command = [sys.executable, "-m", "onnx_spatialdrop", *arguments]
            reader, writer = os.pipe()
            os.close(reader)
            done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
            os.close(writer)
            assert (done.returncode, done.stderr) == (141, "")
        closed = f"exec >&-; exec {sys.executable} -m onnx_spatialdrop inspect {file}"
        assert subprocess.run(["sh", "-c", closed], capture_output=True, timeout=60, check=False).stderr == b""


_SLOW_WRITE = """
import sys, time, onnx_spatialdrop.storage.files as files
from onnx_spatialdrop.cli import main
place = files.Pending.place
def slow(self):
    print("written", flush=True)
    time.sleep(60)
files.Pending.place = slow
if sys.argv[1] == "named":
    files._unnamed = lambda folder: None
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("number", "code", "how"),
    [
        (signal.SIGINT, 130, "unnamed"),
        (signal.SIGTERM, 143, "named"),
        (signal.SIGKILL, -9, "unnamed"),
    ],
)
def test_an_interrupted_write_leaves_nothing(number: int, code: int, how: str, tmp_path: Path) -> None:
    file = sd.save(dropout_model(), tmp_path / "model.onnx")
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", _SLOW_WRITE, how, "attach", str(file), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        time.sleep(0.05)
        child.send_signal(number)
        _, told = child.communicate(timeout=30)
    assert (child.returncode, told) == (code, "")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        file = sd.save(dropout_model(), tmp_path / "model.onnx")
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
