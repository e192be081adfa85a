"""Which file is written where, what is said of it, and how the verbs talk: as people know it from other tools."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import zoo
from building import dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main, parser
from onnx_spatialdrop.cli.verbs import VERBS
from onnx_spatialdrop.kernels.native import missing_reason

SNAPSHOTS = Path(__file__).parent / "snapshots"
EVAL = zoo.path("digits_torch_eval_export")
TRAIN = zoo.path("digits_torch_train_export")
NODES = zoo.path("digits_torch")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return sd.save(dropout_model(wrap=True), tmp_path / "model.onnx")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return sd.save(dropout_model(wrap=True, seed=9), tmp_path / "other.onnx")


class TestPlaces:
    def test_an_output_that_is_named_is_replaced(self, file: Path, other: Path) -> None:
        assert main(["remove", str(file), str(other)]) == 0
        assert main(["remove", str(file), "-o", str(other)]) == 0
        assert sd.find(other) == []

    def test_an_output_that_is_not_named_needs_force(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["attach", str(file)]) == 0
        written = file.with_name("model.attached.onnx")
        written.write_bytes(b"mine")
        capsys.readouterr()
        assert main(["attach", str(file)]) == 1
        assert capsys.readouterr().err == (
            f"onnx-spatialdrop: {written}: is there already; name it as OUTPUT to replace it, or use --force\n"
        )
        assert written.read_bytes() == b"mine"
        assert main(["attach", "--force", str(file)]) == 0
        onnx.checker.check_model(str(written))

    def test_in_place_and_into_a_folder(self, file: Path, other: Path, tmp_path: Path) -> None:
        before = file.read_bytes()
        assert main(["remove", "--output-dir", str(tmp_path / "new"), str(file), str(other)]) == 0
        assert [sd.find(tmp_path / "new" / each.name) for each in (file, other)] == [[], []]
        assert file.read_bytes() == before
        assert main(["remove", str(file), "--in-place", str(other)]) == 0
        assert [sd.find(each) for each in (file, other)] == [[], []]

    def test_one_that_is_refused_does_not_stop_the_others(
        self, file: Path, other: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file.write_bytes(b"nothing")
        assert main(["remove", "--in-place", str(file), str(other)]) == 1
        assert sd.find(other) == []
        assert f"onnx-spatialdrop: {file}: is not a readable ONNX model" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["a.onnx", "b.onnx", "c.onnx"], "several INPUTs need --output-dir or --in-place"),
            (["x/a.onnx", "y/a.onnx", "--output-dir", "z"], "several INPUTs are called a.onnx, and would be one file"),
            (["a.onnx", "--in-place", "-o", "b.onnx"], "not allowed with argument"),
            (["a.onnx", "-v", "-q"], "not allowed with argument"),
        ],
    )
    def test_what_does_not_fit_together(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["remove", *arguments])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_dry_run_writes_nothing(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = {path: path.read_bytes() for path in file.parent.iterdir()}
        for verb in ("to-inference", "remove", "expand", "attach", "detach", "assign-seeds", "stratify", "fuse"):
            assert main([verb, "--dry-run", str(file)]) == 0
            assert "(dry run: nothing is written)" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in file.parent.iterdir()} == before


class TestSaid:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["to-inference"], "nothing to do: no dropout was found in the file"),
            (["fuse"], "nothing to do: the file holds no dropout in standard operators"),
            (["remove"], "nothing to do: the file holds no SpatialDropout nodes"),
            (["expand"], "nothing to do: the file holds no SpatialDropout nodes"),
            (["attach"], "nothing to do: the file holds no SpatialDropout nodes"),
            (["detach"], "nothing to do: the file holds no function body of the operator"),
        ],
    )
    def test_that_there_was_nothing_to_do(
        self, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out.onnx"
        assert main([*arguments, str(EVAL), str(out)]) == 0
        told = capsys.readouterr()
        assert (told.out, told.err) == ("", f"{out}: {said}\n")
        assert out.exists()

    def test_operators_before_and_after(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["remove", "--in-place", str(file)]) == 0
        told = capsys.readouterr()
        assert told.err == f"{file}: removed 1 node\n"
        rows = {line.split()[0]: line.split()[-2:] for line in told.out.splitlines() if line.strip()}
        assert rows["onnx_spatialdrop::SpatialDropout"] == ["1", "0"]
        assert "Neg" not in rows
        assert main(["remove", "--verbose", "--in-place", str(file)]) == 0
        assert "all operators" in capsys.readouterr().out

    def test_nothing_where_nobody_wants_to_hear(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["remove", "--quiet", "--in-place", str(file)]) == 0
        told = capsys.readouterr()
        assert (told.out, told.err) == ("", "")
        assert main(["attach", "-q", "none.onnx"]) == 1
        assert capsys.readouterr().err.startswith("onnx-spatialdrop: none.onnx: ")

    def test_json_of_one_and_of_several(
        self, file: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "o.onnx"
        assert main(["assign-seeds", "--json", str(file), str(out)]) == 0
        one = json.loads(capsys.readouterr().out)
        assert (one["input"], one["output"], one["written"], one["modified"]) == (str(file), str(out), True, True)
        assert one["message"] == "gave 1 node seeds of their own"
        assert one["operators"]["before"] == one["operators"]["after"]
        assert main(["remove", "--json", "--dry-run", "--in-place", str(file), str(other)]) == 0
        both = json.loads(capsys.readouterr().out)
        assert [(each["input"], each["written"]) for each in both] == [(str(file), False), (str(other), False)]

    def test_weights_that_stay(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out.onnx"
        main(["remove", str(zoo.path("digits_external")), str(out)])
        (data,) = tmp_path.glob("*.data")
        other = onnx.load(zoo.path("digits_external"))
        other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
        home = tmp_path / "home"
        home.mkdir()
        onnx.save(other, home / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
        capsys.readouterr()
        assert main(["remove", str(home / "m.onnx"), str(out)]) == 0
        assert f"{out}: weights of the model that was there stay in {data.name}\n" in capsys.readouterr().err

    @pytest.mark.parametrize("verb", sorted(VERBS))
    def test_every_verb_has_json_and_explains_each_argument(self, verb: str) -> None:
        choices = next(action.choices for action in parser()._actions if action.dest == "verb")
        actions = choices[verb]._actions
        assert "--json" in {name for action in actions for name in action.option_strings}
        assert [action.dest for action in actions if not action.help] == []


class TestNames:
    def test_a_node_stands_for_its_first_output(self, tmp_path: Path) -> None:
        clean = onnx.load(EVAL)
        node = next(node for node in clean.graph.node if node.op_type == "Relu")
        by_value = sd.insert(clean, after=node.output[0], rate=0.3)
        assert sd.insert(clean, after={node.name: 0.3}) == by_value
        assert main(["insert", str(EVAL), str(tmp_path / "o.onnx"), "--after", node.name, "--rate", "0.3"]) == 0
        assert len(sd.find(tmp_path / "o.onnx")) == 1
        with pytest.raises(sd.SpecError, match="is named in after, and so is its node; name one of them"):
            sd.insert(clean, after=[node.name, node.output[0]])


class TestProgram:
    def test_no_arguments_print_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        alone = capsys.readouterr().out
        with pytest.raises(SystemExit):
            main(["--help"])
        assert capsys.readouterr().out == alone

    def test_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0
        assert re.fullmatch(r"onnx-spatialdrop (\d+\.\d+\.\d+.*|\(not installed\))\n", capsys.readouterr().out)

    def test_the_help_loads_no_model_library(self) -> None:
        code = "from onnx_spatialdrop.cli import main; main([]); import sys; print('onnx_ir' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"

    def test_a_reader_that_has_seen_enough(self) -> None:
        program = f"{sys.executable} -m onnx_spatialdrop"
        done = subprocess.run(
            ["bash", "-c", f"{program} demo | head -n 1; echo ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[0].startswith("360 handwritten digits")
        assert done.stdout.splitlines()[1] in ("0", "141")


def told(*arguments: str) -> str:
    """Return what a program prints into a pipe, 80 columns wide."""
    done = subprocess.run(
        [sys.executable, "-m", "onnx_spatialdrop", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=zoo.FOLDER,
        env={"COLUMNS": "80", "PYTHONPATH": str(Path(sd.__file__).parents[1]), "PYTHONUTF8": "1"},
    )
    text = re.sub(r"models in\n.*", "models in\n  FOLDER", done.stdout)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


#: What is printed, by the snapshot that holds it.
PRINTED = {
    "demo": ("demo", "--models", "."),
    "inspect_nodes": ("inspect", "digits_if.onnx"),
    "inspect_training": ("inspect", "digits_torch_train_export.onnx"),
    "inspect_inference": ("inspect", "digits_torch_eval_export.onnx"),
    **{f"help_{verb}": (verb, "--help") for verb in VERBS},
    "help": ("--help",),
}


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_what_is_printed(name: str, request: pytest.FixtureRequest) -> None:
    """``pytest --update-snapshots`` writes what is printed now; look at the difference before it is committed."""
    if name == "demo" and missing_reason() is not None:
        pytest.skip("the demo leaves the native kernel out where it is not installed")
    text = told(*PRINTED[name])
    assert "[/" not in text
    assert max(map(len, text.splitlines())) <= 80
    if name.startswith("help") and sys.version_info >= (3, 13):
        pytest.skip("argparse writes its help in another way from Python 3.13 on")
    file = SNAPSHOTS / f"{name}.txt"
    if request.config.getoption("--update-snapshots"):
        file.write_text(text)
    assert _numbers_apart(text) == _numbers_apart(file.read_text())


def _numbers_apart(text: str) -> str:
    """Return the text without what machines differ in: measured numbers, bars, widths of columns."""
    return re.sub(r"\d+\.?\d*(e-\d+)?|█+", "#", re.sub(r"[ ─]+", " ", text))


def test_a_verb_is_called_as_its_function() -> None:
    """Verbs that are no function of the package are those that look at files, and those of a module of their own."""
    elsewhere = {"inspect", "uncertainty", "demo", "verify", "quantize", "olive"}
    assert {verb.replace("-", "_") for verb in VERBS} - elsewhere <= set(sd.__all__)
