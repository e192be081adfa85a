"""What is done to a model so that a trainer reads it, and what is said about it."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import zoo
from building import dropout_ir, dropout_model
from installed import CONVERTS

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.expand.trainers import PREPARED_KEY, TRAINERS, TrainerPass

READABLE = {"onnxruntime-training": (12, 21), "onnx2torch": (12, 17), "onnx2pytorch": (9, 21)}


@CONVERTS
@pytest.mark.parametrize("target", TRAINERS)
@pytest.mark.parametrize("opset", [11, 12, 17, 18, 20, 22, 24])
def test_the_opset_ends_where_the_trainer_reads_it(target: str, opset: int) -> None:
    expanded = sd.expand(dropout_model(opset=opset, wrap=True, mask=False), target=target)
    version = {each.domain: each.version for each in expanded.opset_import}[""]
    first, last = READABLE[target]
    assert version == (opset if first <= opset <= last else last if opset > last else first)
    assert not any(node.domain for node in expanded.graph.node)
    onnx.checker.check_model(expanded)


@CONVERTS
@pytest.mark.parametrize("target", TRAINERS)
@pytest.mark.parametrize("name", ["digits_torch", "digits_keras", "digits_function"])
def test_real_models_answer_as_before(target: str, name: str) -> None:
    expanded = sd.expand(zoo.path(name), target=target)
    assert not expanded.functions
    record = zoo.record(name)
    feeds = {"image": record.images}
    if target == "onnx2pytorch":  # its switch has lost its default
        feeds["training_mode"] = np.array(False)
    (logits,) = zoo.session(expanded).run(None, feeds)
    np.testing.assert_allclose(logits, record.logits, atol=1e-4)


@CONVERTS
def test_it_says_what_it_did_in_the_log_and_in_the_file(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "onnx_spatialdrop"):
        expanded = sd.expand(zoo.path("digits_function"), target="onnx2torch")
    said = [
        "functions written out where they are called: onnx2torch knows none",
        "opset 20 converted to 17: onnx2torch does not read all of 20",
        "allowzero taken from 1 Reshape nodes without a 0: onnx2torch refuses it",
    ]
    assert caplog.messages == [f"expand: {line}" for line in said]
    assert expanded.metadata_props[PREPARED_KEY] == "; ".join(said)


def test_the_ir_version_is_lowered_for_onnxruntime_training() -> None:
    model = dropout_ir()
    model.ir_version = 11
    prepare = TrainerPass("training")
    assert prepare.call(model).modified
    assert model.ir_version == 10
    assert prepare.said == ["IR version 11 lowered to 10: onnxruntime-training reads no newer"]


def test_a_model_that_the_trainer_reads_is_left_alone() -> None:
    model = dropout_ir(opset=17)
    before = ir.to_proto(model)
    for target in (*TRAINERS, "onnxruntime", "openvino"):
        assert not TrainerPass(target).call(model).modified
    assert ir.to_proto(model) == before


def test_other_targets_keep_functions() -> None:
    model = dropout_ir(opset=24)
    AttachPass().call(model)
    assert not TrainerPass("onnxruntime").call(model).modified
    assert model.functions


def test_a_reshape_with_a_zero_keeps_its_meaning() -> None:
    model = dropout_ir(opset=17, mask=False)
    y = model.graph.outputs[0]
    for name, shape in (("empty", [0, -1]), ("flat", [2, -1])):
        value = ir.Value(name=name, const_value=ir.tensor(np.array(shape)))
        model.graph.register_initializer(value)
        model.graph.append(ir.node("Reshape", [y, value], {"allowzero": 1}, name=f"to_{name}"))
    prepare = TrainerPass("onnx2torch")
    prepare.call(model)
    kept = {node.name: "allowzero" in node.attributes for node in model.graph if node.op_type == "Reshape"}
    assert kept == {"to_empty": True, "to_flat": False}


def test_a_branch_is_refused_for_onnxruntime_training() -> None:
    with pytest.raises(
        FormError,
        match=r"node 'branch' is If, on which onnxruntime-training ends the process; export the branch that is to be "
        r"trained, or train with PyTorch \(target='onnx2pytorch'\)",
    ):
        sd.expand(zoo.path("digits_if"), target="training")


@CONVERTS
def test_the_command_says_it_too(tmp_path: object) -> None:
    command = [
        sys.executable,
        "-m",
        "onnx_spatialdrop",
        "expand",
        str(zoo.path("digits_torch")),
        f"{tmp_path}/train.onnx",
    ]
    done = subprocess.run([*command, "--target", "onnx2torch"], capture_output=True, text=True, check=True)
    assert "opset 20 converted to 17: onnx2torch does not read all of 20" in done.stderr
