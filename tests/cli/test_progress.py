"""The bar: only for work that lasts, only on a terminal, only on stderr."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from building import dropout_model

import onnx_spatialdrop as sd

_SLOW = """
import sys, time
from onnx_spatialdrop import cli
from onnx_spatialdrop.cli import terminal
from onnx_spatialdrop.storage import files
terminal.PATIENCE = float(sys.argv[1])
read = files.read
def slow(path):
    time.sleep(1.0)
    return read(path)
files.read = slow
sys.exit(cli.main(sys.argv[2:]))
"""


def on_terminal(patience: float, *arguments: str) -> tuple[int, str, str]:
    """Run a verb whose reading takes a second with stderr on a terminal; return its code, stdout and stderr."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", _SLOW, str(patience), *arguments]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, text=True, env=environment) as child:
        os.close(follower)
        said = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            said += piece
        out = child.communicate(timeout=60)[0]
    os.close(leader)
    return child.returncode, out, said.decode()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return os.fspath(sd.save(dropout_model(), tmp_path / "model.onnx"))


def test_a_bar_appears_on_a_terminal_and_goes_again(file: str) -> None:
    code, out, said = on_terminal(0.2, "inspect", "--json", file)
    assert code == 0
    assert f"reading {file}" in said
    assert "reading" not in out
    assert said.rstrip().endswith(("\x1b[2K", "\x1b[?25h"))  # the line is wiped, and the cursor is back


def test_quick_work_has_no_bar(file: str) -> None:
    code, _, said = on_terminal(30.0, "attach", file)
    assert code == 0
    assert "reading" not in said
    assert "attached the body for 1 node" in said


def test_no_bar_without_a_terminal(file: str) -> None:
    command = [sys.executable, "-c", _SLOW, "0.2", "attach", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == f"{file.removesuffix('.onnx')}.attached.onnx: attached the body for 1 node\n"
