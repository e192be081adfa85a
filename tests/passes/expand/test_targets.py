"""Which form each target gets, and what is said about those that it cannot have."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from building import dropout_ir, dropout_model
from installed import CONVERTS
from zoo import path

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.passes.expand import ExpandPass, expand


@pytest.mark.parametrize(
    ("target", "opset", "form"),
    [
        ("onnxruntime", 18, "philox"),
        ("onnxruntime", 24, "philox"),
        ("onnxruntime", 17, "uniform"),
        ("onnxruntime", 9, "uniform"),
        ("openvino", 18, "philox-int32"),
        ("openvino", 13, "uniform"),
        ("tract", 17, "uniform"),
        ("tract", 18, "philox-int32"),
        ("onnxruntime-node", 20, "philox"),
        ("onnxruntime-web", 17, "uniform"),
        ("training", 17, "dropout"),
        pytest.param("onnxruntime-training", 11, "dropout", marks=CONVERTS),  # at opset 12
        ("onnx2torch", 18, "dropout"),
        ("onnx2pytorch", 13, "uniform"),
        ("reference", 17, "uniform"),
        ("reference", 20, "philox"),
    ],
)
def test_the_best_form(target: str, opset: int, form: str) -> None:
    expanded = expand(dropout_model(opset=opset), target=target)
    assert all(f"/{form}/" in node.name for node in expanded.graph.node)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"form": "uniform", "opset": 22},
            "node 'drop': form 'uniform' in onnxruntime needs opset 9 to 21, and the model imports 22; "
            "use form='philox' or 'dropout' or 'philox-int32', or convert the model's opset to 21 before expanding",
        ),
        (
            {"form": "philox", "opset": 17},
            "node 'drop': form 'philox' in onnxruntime needs opset 18 or newer, and the model imports 17; "
            "use form='uniform' or 'dropout', or convert the model's opset to 18 before expanding",
        ),
        (
            {"form": "philox", "target": "openvino", "opset": 18},
            "node 'drop': form 'philox' does not run in openvino; "
            "allowed there: philox-int32, uniform, mask-inputs, identity",
        ),
        (
            {"target": "onnx2torch", "opset": 19},
            "node 'drop': the model imports opset 19, where onnx2torch runs no form; it runs 'dropout' at opset 12 to "
            "18; convert the model's opset before expanding",
        ),
        (
            {"form": "dropout", "target": "onnx2torch", "opset": 19},
            "node 'drop': form 'dropout' in onnx2torch needs opset 12 to 18, and the model imports 19; "
            "convert the model's opset to 18 before expanding",
        ),
        (
            {"form": "bernoulli", "opset": 18},
            "form is 'bernoulli'; allowed: philox, philox-int32, uniform, dropout, standard, mask-inputs, identity",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_advice(arguments: dict[str, object], message: str) -> None:
    model = dropout_ir(opset=arguments.pop("opset"))
    with pytest.raises(FormError) as error:  # expand itself converts the opset for trainers; see test_trainers.py
        ExpandPass(**arguments).call(model)
    assert str(error.value) == message


def test_an_unknown_target() -> None:
    with pytest.raises(FormError) as error:
        ExpandPass(target="torchscript")
    assert str(error.value) == (
        "target is 'torchscript'; known: onnxruntime, onnxruntime-node, onnxruntime-web, openvino, tract, "
        "onnxruntime-training, onnx2torch, onnx2pytorch, triton, onnx, reference, training"
    )


@pytest.mark.parametrize(("target", "known"), [("openvino", False), ("tract", False), ("onnxruntime", True)])
def test_functions_are_written_out_for_runtimes_that_know_none(target: str, known: bool) -> None:
    expanded = expand(onnx.load(path("digits_function")), target=target)
    assert [function.name for function in expanded.functions] == (["Stage"] if known else [])
    assert ("Stage" in {node.op_type for node in expanded.graph.node}) == known


@pytest.mark.parametrize("form", ["philox", "philox-int32", "uniform", "dropout"])
def test_defaults_can_be_left_out(form: str) -> None:
    expanded = expand(dropout_model(), form=form, defaults=False)
    assert not {"training_mode", "step"} & {tensor.name for tensor in expanded.graph.initializer}
    with_step = form.startswith("philox")
    assert [value.name for value in expanded.graph.input] == ["x", "training_mode"] + ["step"] * with_step


def test_for_triton_every_input_has_the_batch_first_and_has_to_be_fed() -> None:
    expanded = expand(dropout_model(opset=20), target="triton")
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in expanded.graph.input
    }
    assert shapes == {"x": ["N", 4, "H", "W"], "step": ["N", 1]}
    assert not {"training_mode", "step"} & {tensor.name for tensor in expanded.graph.initializer}
    assert "If" not in {node.op_type for node in expanded.graph.node}


def test_for_triton_steps_are_one_a_sample() -> None:
    model = dropout_model(shape=("N", 4, 3, 3))
    x, steps = np.random.default_rng(0).random((3, 4, 3, 3), np.float32), np.array([5, 2, 5])
    wanted = sd.session(model).run(None, {"x": x, "training_mode": np.array(True), "step": steps})
    given = ort.InferenceSession(expand(model, target="triton").SerializeToString()).run(
        None, {"x": x, "step": steps[:, None]}
    )
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_for_triton_a_mask_for_all_samples_is_refused() -> None:
    with pytest.raises(FormError, match=r"node 'drop': has one mask for all samples \(axis 0 is shared\), so that an"):
        expand(dropout_model(axes=(-4, 2)), target="triton")
