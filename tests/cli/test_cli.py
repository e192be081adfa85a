"""The command line as people type it: exit codes, one-line errors, files that are whole."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from building import dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return sd.save(dropout_model(wrap=True), tmp_path / "model.onnx")


def test_inspect_lists_nodes_for_people_and_machines(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file)]) == 0
    assert "drop" in capsys.readouterr().out
    assert main(["inspect", "--json", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    (node,) = told["nodes"]
    assert (node["name"], node["axes"], node["seed"], node["training_mode"]) == (
        "drop", [2, 3], 7, "switch training_mode (false)",
    )  # fmt: skip
    assert told["runs"]["onnxruntime alone"] == {"runs": "no", "why": "no function body: attach"}


def test_inspect_says_which_nodes_are_drawn_together(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(file)]) == 0
    (group,) = json.loads(capsys.readouterr().out)["masks"]
    assert group == {"nodes": ["drop"], "drawn": "alone", "reason": "no other node has its switch, step and sizes"}


def test_inspect_makes_no_model_of_onnx_ir_of_a_file_without_dropout(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sd.to_inference(file, file.with_name("plain.onnx"))
    monkeypatch.setattr(ir, "from_proto", lambda *_: pytest.fail("onnx_ir was used"))
    assert main(["inspect", str(plain)]) == 0
    assert "no dropout: a file for inference" in capsys.readouterr().out


def test_inspect_names_batch_norm_in_training_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    norm = "BatchNormalization <training_mode: int = 1> (x, w, w, w, w)"
    nodes = " ".join(f"[norm{i}] y{i}, a{i}, b{i} = {norm}" for i in range(5))
    signature = "(float[N, 4, 8] x, float[4] w) => (float[N, 4, 8] y0)"
    text = f'<ir_version: 8, opset_import: ["": 15]> g {signature} {{{nodes}}}'
    file = tmp_path / "trains.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    assert main(["inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "no dropout: a file for inference" not in said
    assert "Batch normalization in training mode: norm0, norm1, norm2 and 2 more." in said
    assert max(map(len, said.splitlines())) <= 80 + len(str(file))
    assert main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["training_batch_norms"] == [f"norm{i}" for i in range(5)]
    assert main(["to-inference", "-q", str(file), str(file)]) == 0
    assert main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["training_batch_norms"] == []


def test_inspect_says_what_attach_changed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attach", "--in-place", "-q", str(file)]) == 0
    assert main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["runs"]["onnxruntime alone"]["runs"] == "yes"


@pytest.mark.parametrize(
    ("verb", "suffix"),
    [("to-inference", "inference"), ("attach", "attached"), ("detach", "detached"), ("assign-seeds", "seeded")],
)
def test_without_an_output_the_input_stays_and_a_named_file_appears(file: Path, verb: str, suffix: str) -> None:
    before = file.read_bytes()
    assert main([verb, str(file)]) == 0
    assert file.read_bytes() == before
    onnx.checker.check_model(str(file.with_name(f"model.{suffix}.onnx")))


def test_to_inference_in_place(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["to-inference", str(file), str(file)]) == 0
    assert sd.find(file) == []
    assert "1 " in capsys.readouterr().err


def test_assign_seeds_takes_a_base(file: Path) -> None:
    assert main(["assign-seeds", str(file), str(file), "--base", "5"]) == 0
    assert sd.find(file)[0].seed == sd.find(sd.assign_seeds(dropout_model(wrap=True), base=5))[0].seed


def test_doctor_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [kernel["kernel"] for kernel in report["kernels"]] == ["native", "python", "body"]
    assert report["kernels"][2]["usable"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "none.onnx"], "onnx-spatialdrop: none.onnx: cannot be read: No such file or directory"),
        (
            ["attach", "old.onnx"],
            "onnx-spatialdrop: old.onnx: imports opset 14, and a function body needs 15 or newer",
        ),
        (
            ["to-inference", "old.onnx", "no/folder/out.onnx"],
            "onnx-spatialdrop: no/folder/out.onnx: cannot be written: No",
        ),
    ],
)
def test_expected_faults_are_one_line_and_exit_code_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    sd.save(dropout_model(opset=14), "old.onnx")
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["inspect"],
        ["assign-seeds", "a.onnx", "--base", "x"],
        ["assign-seeds", "a.onnx", "--base", str(2**70)],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fuse", "a.onnx", "--seeds", "3"], "unrecognized arguments: --seeds 3"),
        (["fuse", "a.onnx", "b.onnx", "-o", "c.onnx"], "OUTPUT is given twice: b.onnx and c.onnx"),
    ],
)
def test_a_misused_verb_shows_its_own_usage(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: onnx-spatialdrop fuse ")
    assert shown.endswith(f"onnx-spatialdrop fuse: error: {told}\n")


@pytest.mark.parametrize("way", ["{} {}", "{} -o {}", "-o {1} {0}", "{} --output={}"])
def test_the_output_is_given_by_its_place_or_by_name(way: str, file: Path) -> None:
    output = file.with_name("mine.onnx")
    assert main(["attach", *way.format(file, output).split()]) == 0
    assert output.exists()


def test_python_m_runs_the_command_line(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnx_spatialdrop", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["nodes"][0]["ratio"] == pytest.approx(0.3)


def test_expand_takes_a_form_or_a_target(file: Path) -> None:
    assert main(["expand", str(file), "--form", "uniform"]) == 0
    uniform = {node.op_type for node in onnx.load(file.with_name("model.expanded.onnx")).graph.node}
    assert "RandomUniformLike" in uniform
    assert "SpatialDropout" not in uniform
    assert main(["expand", str(file), "--no-defaults", "--force"]) == 0
    kept = {tensor.name for tensor in onnx.load(file.with_name("model.expanded.onnx")).graph.initializer}
    assert not {"training_mode", "step"} & kept
    assert main(["expand", str(file), "--target", "training", "--force"]) == 0
    assert "Dropout" in {node.op_type for node in onnx.load(file.with_name("model.expanded.onnx")).graph.node}


def test_a_form_that_the_target_cannot_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sd.save(dropout_model(opset=22), tmp_path / "new.onnx")
    assert main(["expand", str(file), "--form", "uniform"]) == 1
    told = capsys.readouterr().err
    assert "node 'drop': form 'uniform' in onnxruntime needs opset 9 to 21, and the model imports 22; use form=" in told


def test_the_demo_shows_that_every_step_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    told = capsys.readouterr().out
    assert "NO" not in told.replace("NOT", "")
    for claim in ("accuracy is PyTorch's", "uniform", "philox", "python", "body", "it gets wrong"):
        assert claim in told


def test_the_demo_needs_its_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--models", str(tmp_path)]) == 1
    assert "digits_torch.npz is not in" in capsys.readouterr().err
