"""The gradient graphs that onnxruntime-training builds, against PyTorch's autograd with the mask that was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import dropout_ir
from onnx_ir.passes.common import InlinePass
from training.golden import CASES, FILE, SEED, SHAPE, STEP, key, torch_gradient
from training.trainer_gradients import gradient, through_the_mask

import onnx_spatialdrop as sd
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.expand import ExpandPass
from onnx_spatialdrop.training import trainer

REASON = trainer.missing_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

FORMS = ("dropout", "uniform", "philox", "philox-int32")


def gradient_of(model: onnx.ModelProto, library: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILE) as stored:
        return gradient(model, stored["x"], stored["weights"], library)


def assert_pytorchs(got: np.ndarray, mask: np.ndarray, axes: tuple[int, ...], ratio: float) -> None:
    with np.load(FILE) as stored:
        x, weights, kept = stored["x"], stored["weights"], stored[f"{key(axes, ratio)}/kept"]
    np.testing.assert_allclose(got, torch_gradient(x, weights, mask, ratio), rtol=1e-6)
    np.testing.assert_allclose(got, np.where(mask, kept, 0), rtol=1e-6)


def model_of(axes: tuple[int, ...], ratio: float) -> ir.Model:
    return dropout_ir(axes=axes, ratio=ratio, seed=SEED, step=[STEP], training_mode=True, shape=SHAPE)


def recorded_mask(axes: tuple[int, ...], ratio: float) -> np.ndarray:
    with np.load(FILE) as stored:
        return stored[f"{key(axes, ratio)}/mask"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_every_forms_gradient_is_pytorchs(form: str, axes: tuple[int, ...], ratio: float) -> None:
    model = model_of(axes, ratio)
    ExpandPass(form, "onnxruntime-training").call(model)
    got, mask = gradient_of(ir.to_proto(model))
    assert_pytorchs(got, mask, axes, ratio)
    if form.startswith("philox"):
        np.testing.assert_array_equal(mask, recorded_mask(axes, ratio))


@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_a_file_with_the_body_trains_by_the_same_mask(axes: tuple[int, ...], ratio: float) -> None:
    model = model_of(axes, ratio)
    AttachPass().call(model)
    got, mask = gradient_of(ir.to_proto(sd.expand(model, target="training", form="philox")))
    np.testing.assert_array_equal(mask, recorded_mask(axes, ratio))
    assert_pytorchs(got, mask, axes, ratio)


@pytest.mark.parametrize(("inline", "message"), [(False, "SpatialDropout"), (True, "CastLike")])
def test_the_builder_fails_on_the_body_itself(inline: bool, message: str) -> None:
    """The trap that TrainerPass leads around: no functions, and no gradient of the CastLike in ours."""
    model = model_of((2, 3), 0.3)
    AttachPass().call(model)
    if inline:
        InlinePass().call(model)
    with pytest.raises(RuntimeError, match=message):
        gradient_of(ir.to_proto(model))


@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_the_native_ops_gradient_through_its_mask_is_pytorchs(axes: tuple[int, ...], ratio: float) -> None:
    """The op has no gradient of its own: it draws the mask from ones that none flows through, and Mul has one."""
    reason = native.missing_reason()
    if reason is not None:
        pytest.skip(reason)
    model = through_the_mask(ir.to_proto(model_of(axes, ratio)))
    got, mask = gradient_of(model, native.get_library_path())
    np.testing.assert_array_equal(mask, recorded_mask(axes, ratio))
    assert_pytorchs(got, mask, axes, ratio)
