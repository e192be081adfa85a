"""Trained weights into an inference model, and which weights those are; no trainer is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import zoo

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import TrainerError
from onnx_spatialdrop.training import trainable, trainer, update

TORCH = ["0.weight", "0.bias", "4.weight", "4.bias", "9.weight", "9.bias", "15.weight", "15.bias"]


def weights_of(path: Path) -> dict[str, np.ndarray]:
    initializers = onnx.load(path).graph.initializer
    return {each.name: onnx.numpy_helper.to_array(each) for each in initializers}


def test_the_weights_of_the_digits_models_are_found() -> None:
    assert trainable(io.load(zoo.path("digits_torch"))) == TORCH
    keras = trainable(io.load(zoo.path("digits_keras")))
    assert len(keras) == 8  # three convolutions and a dense layer whose bias is an Add
    assert "digits_1/classes_1/BiasAdd/ReadVariableOp:0" in keras


def test_new_weights_take_the_place_of_the_old_and_nothing_else_changes(tmp_path: Path) -> None:
    clean = sd.remove(onnx.load(zoo.path("digits_torch")))
    new = {name: array * 2 for name, array in weights_of(zoo.path("digits_torch")).items() if name in TORCH[:3]}
    np.savez(tmp_path / "trained.npz", **new)
    for weights in (new, tmp_path / "trained.npz", str(tmp_path / "trained.npz")):
        updated = update(clean, weights)
        assert updated.graph.node == clean.graph.node
        for each in updated.graph.initializer:
            before = onnx.numpy_helper.to_array(next(t for t in clean.graph.initializer if t.name == each.name))
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(each), new.get(each.name, before))


def test_it_writes_a_file_and_leaves_the_callers_arrays_alone(tmp_path: Path) -> None:
    bias = np.arange(16, dtype=np.float32)
    written = update(zoo.path("digits_torch"), {"0.bias": bias}, tmp_path / "out.onnx")
    assert written == tmp_path / "out.onnx"
    np.testing.assert_array_equal(weights_of(written)["0.bias"], bias)
    model = update(io.load(zoo.path("digits_torch")), {"0.bias": bias})
    bias += 1  # trainers go on writing into their arrays
    np.testing.assert_array_equal(model.graph.initializers["0.bias"].const_value.numpy(), bias - 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"0.wieght": np.zeros(3)},
            "weight '0.wieght' has no initializer of that name in the model; it has '0.weight', ",
        ),
        (
            {"0.bias": np.zeros(15, np.float32)},
            "weight '0.bias' is float32[15] and the model's is float32[16]; give one of the same type and shape",
        ),
        (
            {"0.bias": np.zeros(16)},
            "weight '0.bias' is float64[16] and the model's is float32[16]; give one of the same type and shape",
        ),
        (
            {"0.bias": np.full(16, np.nan, np.float32)},
            "weight '0.bias' holds NaN or infinity; training diverged, so take an earlier checkpoint",
        ),
        (3, "weights must be a mapping, a CheckpointState or a path of either, not int"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: object, message: str) -> None:
    with pytest.raises((TrainerError, TypeError)) as error:
        update(zoo.path("digits_torch"), weights)
    assert str(error.value).startswith(message)


def test_python_too_new_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert trainer.missing_reason() == (
        "onnxruntime-training-cpu ended at 1.19.2, whose wheels need Python 3.11 or older, and this is Python 3.13; "
        "make an environment of Python 3.11 for training: 'pip install onnxruntime-training-cpu==1.19.2 torch onnx-ir "
        "ml_dtypes', then 'pip install --no-deps .' in this package's sources (with dependencies, onnxruntime would "
        "overwrite it)"
    )


def test_a_missing_trainer_is_said_before_anything_is_written(tmp_path: Path) -> None:
    from onnx_spatialdrop.training import artifacts

    if trainer.missing_reason() is None:
        pytest.skip("onnxruntime-training is installed here")
    with pytest.raises(
        TrainerError, match=r"onnxruntime-training-cpu (ended at 1\.19\.2|is not installed \(found: onnx)"
    ):
        artifacts(zoo.path("digits_torch"), folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_pytorch_without_onnx2torch_is_said() -> None:
    try:
        import onnx2torch  # noqa: F401
    except ImportError:
        with pytest.raises(TrainerError, match=r"training with PyTorch needs onnx2torch and torch \(No module named"):
            import onnx_spatialdrop.training.pytorch  # noqa: F401
    else:
        pytest.skip("onnx2torch is installed here")
