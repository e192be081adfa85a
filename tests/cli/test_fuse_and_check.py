"""``fuse``, ``check`` and ``to-inference`` on files that exporters wrote."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from exported import exported

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(exported("torch_net_mnistnet_train_dynN.onnx"), tmp_path / "net.onnx"))


def test_fuse_writes_a_file_and_counts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuse", str(file)]) == 0
    assert [node.axes for node in sd.find(file.with_name("net.fused.onnx"))] == [(2, 3)]
    assert "1 fused, 1 refused (--explain says why)" in capsys.readouterr().err


def test_fuse_explains_itself(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuse", str(file), "--explain"]) == 0
    told = capsys.readouterr().out
    assert "fused 'node_mul_21': spatial, ratio 0.5, axes [2, 3]" in told
    assert "not proven: element-wise dropout; it becomes SpatialDropout with axes [] only on request" in told


def test_fuse_takes_options_and_prints_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuse", str(file), str(file), "--elementwise", "--off", "--seed", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [record["axes"] for record in report["fused"]] == [[2, 3], []]
    assert report["refused"] == []
    assert [node.training_mode for node in sd.find(file)] == ["switch training_mode (false)"] * 2


def test_check_exits_with_3_where_it_finds_something(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(file)]) == 3
    assert "deleted-dropout: node_native_dropout__1: ONNX Runtime deletes this Dropout" in capsys.readouterr().out
    assert main(["check", "--json", str(file)]) == 3
    told = json.loads(capsys.readouterr().out)
    assert [finding["rule"] for finding in told["findings"]] == ["deleted-dropout", "live-dropout"]


def test_check_exits_with_0_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", exported("torch_net_mnistnet_eval_dynN.onnx")]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_to_inference_cleans_a_training_export(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["to-inference", str(file)]) == 0
    assert "removed 2 dropouts" in capsys.readouterr().err
    cleaned = onnx.load(file.with_name("net.inference.onnx"))
    assert len(cleaned.graph.node) == len(onnx.load(exported("torch_net_mnistnet_eval_dynN.onnx")).graph.node)
