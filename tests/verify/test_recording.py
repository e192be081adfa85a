"""A recording stands in for its framework, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from verify.numpy_framework import NumpyNetwork, X, model

from onnx_spatialdrop.cli import main
from onnx_spatialdrop.errors import ModelFileError, VerifyError
from onnx_spatialdrop.verify import record, verify

FACTORY = """
import sys
sys.path.insert(0, {tests!r})
from verify.numpy_framework import NumpyNetwork

def network():
    return NumpyNetwork()

def other():
    return NumpyNetwork().changed("head.drop", seed=9)

def broken():
    raise KeyError("weights")
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return record(NumpyNetwork(), model(), tmp_path / "net.npz", X, steps=3, first_step=4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(model(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_it_says_what_the_framework_said(recorded: Path) -> None:
    live, replayed = verify(NumpyNetwork(), model(), X, 3, first_step=4), verify(recorded, model())
    assert replayed
    assert replayed.layers == live.layers
    assert replayed.outputs == live.outputs
    assert replayed.framework == "NumPy (recorded)"
    assert verify(recorded, model(), X, steps=1, first_step=6)


def test_faults_are_found_as_they_are_live(recorded: Path) -> None:
    proto = model()
    node = next(node for node in proto.graph.node if node.name == "head.drop")
    next(a for a in node.attribute if a.name == "scale").f = 2.01
    live = verify(NumpyNetwork(), proto, X, 3, first_step=4)
    assert verify(recorded, proto).divergences == live.divergences
    assert str(live.first) == (
        "step 4, layer 'head.drop': kept values are multiplied by 2.00999999, the framework's by 2"
    )


def test_equal_runs_give_equal_bytes(recorded: Path, tmp_path: Path) -> None:
    again = record(NumpyNetwork(), model(), tmp_path / "again.npz", {"x": X}, steps=3, first_step=4)
    assert again.read_bytes() == recorded.read_bytes()


def test_misuse_is_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="holds steps 4 to 6, not step 7"):
        verify(recorded, model(), steps=4)
    with pytest.raises(VerifyError, match="was recorded with other inputs; leave the inputs out"):
        verify(recorded, model(), X + 1)
    with pytest.raises(ModelFileError, match=r"none\.npz: cannot be read"):
        verify(tmp_path / "none.npz", model())
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(ModelFileError, match=r"text\.npz: is no recording; record\(\) writes one"):
        verify(tmp_path / "text.npz", model())
    np.savez(tmp_path / "arrays.npz", x=X)
    with pytest.raises(ModelFileError, match=r"arrays\.npz: is no recording"):
        verify(tmp_path / "arrays.npz", model())
    np.savez(tmp_path / "future.npz", recording=np.array(json.dumps({"format": 2})))
    with pytest.raises(ModelFileError, match="is a recording of format 2; known: 1"):
        verify(tmp_path / "future.npz", model())
    with pytest.raises(VerifyError, match="layers do not match by name: the framework has no"):
        record(NumpyNetwork({}), model(), tmp_path / "empty.npz", X)
    assert not (tmp_path / "empty.npz").exists()


def test_the_command_line_with_a_recording(
    recorded: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["verify", str(file), "--against", str(recorded)]) == 0
    told = capsys.readouterr().out
    assert "72 of 72" in told
    assert "equal: NumPy (recorded) and onnxruntime" in told
    assert main(["verify", str(file), "--against", str(recorded), "--runtime", "reference", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True


def test_the_command_line_with_a_factory(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "net.py"
    source.write_text(FACTORY.format(tests=str(Path(__file__).parents[1])))
    np.savez(tmp_path / "x.npz", x=X)
    np.save(tmp_path / "x.npy", X)
    command = ["verify", str(file), "--inputs", str(tmp_path / "x.npz"), "--steps", "2", "--against"]
    assert main([*command, f"{source}:network"]) == 0
    assert main(["verify", str(file), "--inputs", str(tmp_path / "x.npy"), "--against", f"{source}:network"]) == 0
    capsys.readouterr()
    assert main([*command, f"{source}:other"]) == 3
    assert "different: NumPy and onnxruntime" in (told := capsys.readouterr().out)
    assert "2 steps; first at step 0, layer 'head.drop': " in told
    for what, message in (
        (f"{source}:broken", "net.py:broken: failed: KeyError: 'weights'"),
        (f"{source}:nothing", "net.py: has no 'nothing'; give FILE.py:NAME"),
        (f"{tmp_path / 'none.py'}:network", "none.py: is no Python file that can be read"),
    ):
        assert main([*command, what]) == 1
        assert message in capsys.readouterr().err.replace("\n", " ")
