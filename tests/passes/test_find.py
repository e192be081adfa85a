"""What find tells of each node."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from building import dropout_ir, dropout_model
from hypothesis import given, settings
from random_models.plain_graphs import models

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.passes.found import Found


def test_switches_types_and_shapes_are_told() -> None:
    (found,) = sd.find(dropout_model(dtype="float16", seed=2**64 - 1))
    assert (found.name, found.axes, found.seed, found.rng) == ("drop", (2, 3), -1, "philox")
    assert found.ratio == pytest.approx(0.3)
    assert (found.dtype, found.shape) == ("float16", ("N", 4, "H", "W"))
    assert found.training_mode == "switch training_mode (false)"
    assert found.step == "switch step (-1)"
    assert (found.scope, found.mask_used) == ("", True)
    json.dumps(found.as_dict())


def test_constants_are_told_from_switches() -> None:
    (found,) = sd.find(dropout_model(training_mode=True, step=[1, 2], mask=False))
    assert (found.training_mode, found.step, found.mask_used) == ("constant true", "constant [1, 2]", False)


def test_the_node_of_an_ir_model_can_be_changed() -> None:
    model = dropout_ir()
    sd.find(model)[0].node.name = "renamed"
    assert sd.find(model)[0].name == "renamed"


def test_an_unknown_type_is_none_and_not_float64() -> None:
    model = dropout_ir(wrap=True)
    value = next(node for node in model.graph if node.op_type == "SpatialDropout").inputs[0]
    assert value is not None
    value.type = None
    assert [found.dtype for found in sd.find(model)] == [None]


ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "models").glob("*.onnx"), *(ROOT / "tests" / "data").rglob("*.onnx")])


def _said(find: Callable[[Any], list[Found]], model: object) -> object:
    try:
        return [each.as_dict() for each in find(model)]
    except sd.SpecError as error:
        return str(error)


def test_a_file_is_read_as_its_ir_model_is() -> None:
    count = 0
    for file in FILES:
        proto = onnx.load(file, load_external_data=False)
        found = _said(sd.find, proto)
        assert found == _said(sd.find, io.from_proto(proto)), file
        count += len(found)
    assert count > 100


@settings(max_examples=60, derandomize=True, deadline=None)
@given(models())
def test_a_random_model_is_read_as_its_ir_model_is(model: onnx.ModelProto) -> None:
    assert _said(sd.find, model) == _said(sd.find, io.from_proto(model))


def test_no_model_of_onnx_ir_is_made_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sd.save(dropout_model(wrap=True), tmp_path / "m.onnx")
    monkeypatch.setattr(ir, "from_proto", lambda *_: pytest.fail("onnx_ir was used"))
    assert [each.name for each in sd.find(file)] == ["drop"]


def test_switches_in_external_data_are_told(tmp_path: Path) -> None:
    model = dropout_model(wrap=True)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    assert sd.find(tmp_path / "m.onnx")[0].as_dict() == sd.find(dropout_model(wrap=True))[0].as_dict()
    assert (tmp_path / "m.data").exists()
