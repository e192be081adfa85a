"""What is done to a protobuf directly is what is done through onnx_ir, on recorded files and on random graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from building import dropout_model
from hypothesis import given, settings
from random_models.plain_graphs import models

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.passes.direct import WANTED, take_out
from onnx_spatialdrop.passes.remove import RemovePass
from onnx_spatialdrop.passes.to_inference import InferencePass
from onnx_spatialdrop.storage import protos

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "models").glob("*.onnx"), *(ROOT / "tests" / "data").rglob("*.onnx")])


def canonical(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model as onnx_ir writes it, but for the order in which it lists what it says of values."""
    proto = ir.to_proto(io.from_proto(model))
    proto.graph.value_info.sort(key=lambda value: value.name)
    return proto.SerializeToString(deterministic=True)


def directly(model: onnx.ModelProto, only_spatial: bool = False) -> tuple[onnx.ModelProto, int] | None:
    """Return what take_out makes of a copy, and its count; None where it leaves the model to onnx_ir."""
    survey = protos.survey(onnx.ModelProto.FromString(model.SerializeToString()), "the model", WANTED)
    removed = take_out(survey, only_spatial)
    return None if removed is None else (survey.model, removed)


def compare(model: onnx.ModelProto) -> bool:
    """Compare both ways; return whether there was a direct one."""
    direct = directly(model)
    if direct is not None:
        general, rewrite = io.from_proto(model), InferencePass()
        rewrite.call(general)
        assert rewrite.left == []
        assert direct[1] == rewrite.removed
        assert canonical(direct[0]) == canonical(ir.to_proto(general))
        again = directly(direct[0])
        assert again is not None
        assert again[1] == 0
    removed = directly(model, only_spatial=True)
    assert removed is not None
    general = io.from_proto(model)
    RemovePass().call(general)
    assert canonical(removed[0]) == canonical(ir.to_proto(general))
    return direct is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_every_recorded_file(file: Path) -> None:
    compare(onnx.load(file, load_external_data=False))


def test_it_is_taken_where_dropout_is_nodes() -> None:
    taken = {file.stem for file in FILES if directly(onnx.load(file, load_external_data=False)) is not None}
    assert {"digits_torch", "digits_float16", "digits_function", "digits_external"} <= taken
    assert {"digits_torch_train_export", "digits_if"}.isdisjoint(taken)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(models())
def test_on_random_graphs(model: onnx.ModelProto) -> None:
    compare(model)


def test_the_function_takes_it_from_path_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sd.save(dropout_model(wrap=True, mask=False), tmp_path / "model.onnx")
    monkeypatch.setattr(InferencePass, "call", lambda *_: pytest.fail("onnx_ir was used"))
    monkeypatch.setattr(RemovePass, "call", lambda *_: pytest.fail("onnx_ir was used"))
    for function in (sd.to_inference, sd.remove):
        assert function(file, tmp_path / "out.onnx") == tmp_path / "out.onnx"
        assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Abs", "Neg"]


def test_equal_input_gives_equal_bytes() -> None:
    model = dropout_model(wrap=True, mask=False)
    assert directly(model)[0].SerializeToString() == directly(model)[0].SerializeToString()


def test_a_batch_normalization_that_becomes_an_output_takes_its_name() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2,2,3] x) => (float[2,2,3] y, float[2] m)'
        " <float[2] s = {1, 2}, float[2] b = {3, 4}, float[2] mean = {5, 6}, float[2] var = {7, 8}>"
        " { h, m, v = BatchNormalization <training_mode = 1> (x, s, b, mean, var)  y = Dropout (h) }"
    )
    assert compare(model)
    clean = sd.to_inference(model)
    onnx.checker.check_model(clean, full_check=True)
    assert [list(node.output) for node in clean.graph.node] == [["y"], ["m"]]
