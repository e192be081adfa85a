"""Verbs that run models: what a runtime or a user's code does to its process is told in one line, and ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from fuzz import company

import onnx_spatialdrop
from onnx_spatialdrop.cli import main

VERIFY = ["--against", "recording.npz"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    company.fill(tmp_path, company.good(company.pairs()[0]))
    return tmp_path


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "onnx_spatialdrop", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    with start(*arguments, cwd=cwd) as child:
        out, err = child.communicate(timeout=300)
    return child.returncode, out, err


def test_as_a_program_it_says_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("verify", "model.onnx", *VERIFY, "--json", cwd=folder)
    assert (code, err) == (0, "")
    assert main(["verify", str(folder / "model.onnx"), "--against", str(folder / "recording.npz"), "--json"]) == 0
    assert out == capsys.readouterr().out.replace(str(folder) + os.sep, "")
    assert run("verify", "none.onnx", *VERIFY, cwd=folder) == (
        1, "", "onnx-spatialdrop: none.onnx: cannot be read: No such file or directory\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "verify crashed (SIGSEGV) while it ran the model"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "verify was killed, as happens where memory runs out"),
        ("sys.exit(7)", "framework.py:network: failed: SystemExit: 7"),
        ("1 / 0", "framework.py:network: failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_process_that_dies_is_one_line(how: str, told: str, folder: Path) -> None:
    (folder / "framework.py").write_text(f"import os, signal, sys\ndef network():\n    {how}\n")
    before = sorted(os.listdir(folder))
    code, out, err = run("verify", "model.onnx", "--against", "framework.py:network", cwd=folder)
    assert (code, out) == (1, "")
    assert err.startswith("onnx-spatialdrop: ")
    assert err.count("\n") == 1
    assert told in err
    assert sorted(os.listdir(folder)) == before  # not even __pycache__


def endless(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a Loop of 2**62 rounds that the model's first output waits for."""
    made = onnx.parser.parse_graph(
        """g () => (float[1] last) {
          rounds = Constant <value = int64 {4611686018427387904}> ()
          on = Constant <value = bool {1}> ()
          first = Constant <value = float[1] {1.0}> ()
          last = Loop <body = round (int64 i, bool go, float[1] before) => (bool again, float[1] after) {
            again = Identity (go)
            after = Mul (before, before)
          }> (rounds, on, first)
        }"""
    )
    model.graph.node.extend(made.node)
    output = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Add", [output.name, "last"], ["waits"]))
    output.name = "waits"
    return model


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_model_that_never_ends_can_be_interrupted(number: int, code: int, folder: Path) -> None:
    onnx.save(endless(onnx.load(folder / "model.onnx")), folder / "model.onnx")
    (folder / "framework.py").write_text(
        "from onnx_spatialdrop.verify import Recording\n"
        "class Network(Recording):\n"
        "    def run(self, inputs, step):\n"
        "        open('begun', 'w').close()\n"
        "        return super().run(inputs, step)\n"
        "def network():\n    return Network('recording.npz')\n"
    )
    arguments = ("verify", "model.onnx", "--against", "framework.py:network", "--inputs", "inputs.npz")
    with start(*arguments, cwd=folder) as child:
        deadline = time.monotonic() + 240
        while not (folder / "begun").exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # into the Loop
        assert child.poll() is None
        child.send_signal(number)
        try:
            out, err = child.communicate(timeout=120)
        finally:
            child.kill()
    assert (child.returncode, out, err) == (code, "", "")
    assert not _children_of(folder)


def _children_of(folder: Path) -> list[str]:
    """Return the processes that still work in the folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            found += [place.parent.name] if place.resolve() == folder.resolve() else []
    return found


def test_doctor_survives_a_damaged_library(tmp_path: Path) -> None:
    """The loader maps what a truncated file does not hold, and touching that ends the process (SIGBUS)."""
    package = Path(onnx_spatialdrop.__file__).parent
    shutil.copytree(package, tmp_path / "onnx_spatialdrop", ignore=shutil.ignore_patterns("models", "__pycache__"))
    library = tmp_path / "onnx_spatialdrop" / "kernels" / "libonnx_spatialdrop.so"
    whole = _some_library()
    library.write_bytes(whole[: len(whole) // 10])
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
        "from onnx_spatialdrop.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"kernel": "native",\n      "usable": false' in done.stdout
    assert '"kernel": "body",\n      "usable": true' in done.stdout


def _some_library() -> bytes:
    """Return the native library where there is one, and else any other."""
    import onnxruntime

    from onnx_spatialdrop.errors import KernelError
    from onnx_spatialdrop.kernels import native

    try:
        return native.get_library_path().read_bytes()
    except KernelError:
        return next((Path(onnxruntime.__file__).parent / "capi").glob("*.so")).read_bytes()


def test_demo_names_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = company.for_demo()
    model = onnx.ModelProto.FromString(files["digits_torch.onnx"])
    node = next(node for node in model.graph.node if node.op_type == "SpatialDropout")
    next(attribute for attribute in node.attribute if attribute.name == "ratio").f = 7
    lying = files | {"digits_torch.npz": company.pairs()[0].recording}
    for folder, told in (
        (files | {"digits_torch.onnx": model.SerializeToString()}, "ratio is 7.0"),
        (lying, "the demo cannot go on with what lies there: "),
        (files | {"digits_torch.npz": b"no"}, "digits_torch.npz: holds no arrays"),
    ):
        company.fill(tmp_path, folder)
        assert main(["demo", "--models", str(tmp_path)]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"onnx-spatialdrop: {tmp_path}")
        assert told in err
        assert err.count("\n") == 1
