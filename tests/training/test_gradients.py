"""The gradient of every form is PyTorch's for the same mask; here without any trainer.

Dropout is linear in each element of X, so central differences of a quadratic loss are its gradient but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from building import dropout_model
from training.golden import CASES, FILE, SEED, SHAPE, STEP, key

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.kernels import native, python
from onnx_spatialdrop.operator import spec

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

OWN_BITS = ("reference", "native", "python", "body", "philox", "philox-int32")
DRAWN = ("uniform", "dropout")


def fresh_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def runner(form: str, axes: tuple[int, ...], ratio: float) -> Run:
    """Return a function x -> y, mask; each call draws the same mask."""
    model = dropout_model(dtype="float64", axes=axes, ratio=ratio, seed=SEED, step=[STEP], training_mode=True)
    if form == "reference":
        scale = spec.explicit_scale(ratio, np.dtype(np.float64))
        return lambda x: reference.spatial_dropout(x, axes, ratio, SEED, [STEP], True, scale)
    if form in ("native", "python", "body"):
        reason = {"native": native.missing_reason(), "python": python.missing_reason(), "body": None}[form]
        if reason is not None:
            pytest.skip(reason)
        session = sd.session(model, form)
        return lambda x: tuple(session.run(["y", "mask"], {"x": x}))
    expanded = sd.expand(model, form=form)
    # A new session each time: the runtime's generators start anew from their seeds.
    return lambda x: tuple(fresh_session(expanded).run(["y", "mask"], {"x": x}))


@pytest.mark.parametrize("form", [*OWN_BITS, *DRAWN])
@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_every_forms_gradient_is_pytorchs(form: str, axes: tuple[int, ...], ratio: float) -> None:
    with np.load(FILE) as stored:
        x, weights = stored["x"], stored["weights"]
        mask, gradient, kept = (stored[f"{key(axes, ratio)}/{name}"] for name in ("mask", "gradient", "kept"))
    run = runner(form, axes, ratio)
    above, drawn = run(x + 0.5)
    below, again = run(x - 0.5)
    np.testing.assert_array_equal(drawn, again)
    slope = weights * (above**2 - below**2) / 2
    if form in OWN_BITS:
        np.testing.assert_array_equal(drawn, mask)
    else:  # any mask's gradient is made of two: that of a kept entry, and 0
        gradient = np.where(drawn, kept, 0)
        assert drawn.any()
        assert ratio == 0.0 or not drawn.all()
    np.testing.assert_allclose(slope, gradient, rtol=1e-6, atol=1e-12)


def test_the_gradient_of_the_native_op_is_told_by_its_mask_output() -> None:
    """What a custom gradient has to compute: dY * scale where the mask is true, 0 elsewhere."""
    reason = native.missing_reason()
    if reason is not None:
        pytest.skip(reason)
    for axes, ratio in CASES:
        with np.load(FILE) as stored:
            x, weights, gradient = stored["x"], stored["weights"], stored[f"{key(axes, ratio)}/gradient"]
        model = dropout_model(
            dtype="float64", axes=axes, ratio=ratio, seed=SEED, step=[STEP], training_mode=True, shape=SHAPE
        )
        y, mask = sd.session(model, "native").run(["y", "mask"], {"x": x})
        scale = spec.kept_scale(ratio, spec.explicit_scale(ratio, x.dtype), x.dtype)
        np.testing.assert_allclose(np.where(mask, weights * y * scale, 0), gradient, rtol=1e-6, atol=1e-12)
