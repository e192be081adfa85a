"""The verb insert: the same file as the function writes, and usage errors that say what is wanted."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from building import NETWORK
from onnx import parser

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(parser.parse_model(NETWORK), path)
    return path


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--after", "h"], {"after": "h"}),
        (["--after", "h", "--after", "y", "--rate", "0.3"], {"after": ["h", "y"], "rate": 0.3}),
        (["--after", "h", "--seed", "-5"], {"after": "h", "seed": -5}),
        (["--after", "h", "--axes", "0,-1"], {"after": "h", "axes": [0, -1]}),
        (["--after", "h", "--noise-shape", "None, 1,1,4"], {"after": "h", "noise_shape": [None, 1, 1, 4]}),
        (["--after", "h", "--channels-last"], {"after": "h", "data_format": "channels_last"}),
    ],
)
def test_it_writes_what_the_function_returns(arguments: list[str], options: dict[str, Any], file: Path) -> None:
    assert main(["insert", str(file), *arguments]) == 0
    wanted = file.with_name("wanted.onnx")
    sd.insert(file, wanted, **options)
    assert file.with_name("net.dropped.onnx").read_bytes() == wanted.read_bytes()


def test_it_says_how_many(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(file.with_name("mc.onnx"))
    assert main(["insert", str(file), output, "--after", "conv", "--after", "h"]) == 0
    assert capsys.readouterr().err == f"{output}: inserted 2 nodes; dropout is off until training_mode is fed\n"


def test_an_unknown_value_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["insert", str(file), "--after", "relu"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"onnx-spatialdrop: {file}: value 'relu': the main graph has no such value; ")
    assert told.count("\n") == 1
    assert [path.name for path in file.parent.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "one of the arguments --after, --after-op, --before-op, --last is required"),
        (["--after", "h", "--axes", "2;3"], "'2;3' is no list of axes such as 2,3"),
        (["--after", "h", "--noise-shape", "x,1"], "'x,1' is no noise shape such as None,1,1,None"),
        (["--after", "h", "--axes", "1", "--channels-last"], "--channels-last: not allowed with argument --axes"),
    ],
)
def test_usage_errors(arguments: list[str], told: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["insert", str(file), *arguments])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
