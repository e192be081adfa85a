"""What to_inference leaves in training mode it names, and what it need not touch it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from inference import operators, parse, with_half

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.errors import TrainingLeftError, TrainingLeftWarning
from onnx_spatialdrop.passes.to_inference import run

NOISE = "[eps] n = RandomNormalLike(x) y = Add(x, n)"
#: What is kept is not scaled.
UNPROVEN = "[draw] u = RandomUniformLike(x) b = Less(u, half) m = Cast <to: int = 1> (b) y = Mul(x, m)"


def test_what_may_be_dropout_and_is_not_proven_is_named() -> None:
    model = with_half(UNPROVEN)
    with pytest.warns(TrainingLeftWarning, match="1 thing is still in training mode, or may be dropout: 'draw'"):
        got = sd.to_inference(model)
    assert got == model
    with pytest.raises(TrainingLeftError, match="'draw'"):
        sd.to_inference(model, strict=True)


def test_noise_that_is_the_model_is_no_finding(caplog: pytest.LogCaptureFixture) -> None:
    model = with_half(NOISE)
    with caplog.at_level("INFO", "onnx_spatialdrop"):
        assert sd.to_inference(model, strict=True) == model
    assert "'eps' (RandomNormalLike): it is noise of the model" in caplog.text
    sampled = parse("g (float[2,3] x) => (int32[2,1] y) { [s] y = Multinomial(x) }")
    assert [(each.name, each.is_finding) for each in run(sampled).left] == [("s", False)]
    thresholded = with_half("[u] u = RandomUniformLike(x) b = Less(u, x) y = Cast <to: int = 1> (b)")
    assert [each.is_finding for each in run(thresholded).left] == [False]


def test_dropout_of_an_unknown_domain_is_named() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { [d] y = f.BiasDropout(x) }")
    assert [(each.name, each.is_finding) for each in run(model).left] == [("d", True)]


def test_the_command_line_says_what_is_left_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for body, code, said in (
        (UNPROVEN, 3, "left: 'draw'"),
        (NOISE, 0, "noise of the model: 'eps'"),
        ("y = Neg(x)", 0, ""),
    ):
        file = sd.save(with_half(body), tmp_path / "m.onnx")
        assert main(["to-inference", str(file), str(tmp_path / "out.onnx")]) == code
        assert said in capsys.readouterr().err
        assert (tmp_path / "out.onnx").read_bytes() == file.read_bytes()


def test_strict_writes_nothing(tmp_path: Path) -> None:
    file = sd.save(with_half(UNPROVEN), tmp_path / "m.onnx")
    with pytest.raises(TrainingLeftError):
        sd.to_inference(file, tmp_path / "out.onnx", strict=True)
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_without_dropout_is_written_byte_for_byte(tmp_path: Path) -> None:
    content = (
        with_half("y = Neg(x)").SerializeToString() + b"\x32\x00"
    )  # an empty doc_string, which protobuf leaves out
    (tmp_path / "m.onnx").write_bytes(content)
    sd.to_inference(tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == content


def test_nodes_out_of_order_are_sorted_and_that_is_said() -> None:
    model = with_half("d = Dropout(h, half) y = Neg(d) h = Relu(x)")
    with pytest.warns(UserWarning, match="its nodes did not stand in topological order; they were sorted"):
        got = sd.to_inference(model)
    assert operators(got) == ["Relu", "Neg"]
    assert operators(model) == ["Dropout", "Neg", "Relu"]
