"""The gradient of a node with a framework's generator is that of Keras's own layer, as recorded; needs no Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import dropout_ir
from training.golden_keras import FILE, ROWS, STEP, Case, load_case

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.kernels import native, python
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.dialects import ratio_for
from onnx_spatialdrop.training import trainer

CASES = [(rng, row) for rng in ROWS for row in ROWS[rng]]
cases = pytest.mark.parametrize(("rng", "row"), CASES, ids=[f"{rng}-{row}" for rng, row in CASES])
OWN_BITS = ("reference", "native", "python", "body", "philox", "philox-int32")
DRAWN = ("uniform", "dropout")


def recorded(rng: str, row: int) -> np.ndarray:
    with np.load(FILE) as stored:
        return stored[f"{rng}/{row}"]


def expected_mask(rng: str, given: Case) -> np.ndarray:
    ratio = ratio_for(given.rate, rng, np.float32)
    return reference.dropout_mask(given.x.shape, given.axes, ratio, given.seed, STEP, rng=rng)


def model_of(rng: str, given: Case) -> onnx.ModelProto:
    """Return the model that an exporter writes for the layer: the scale is that of the double."""
    ratio = ratio_for(given.rate, rng, np.float32)
    scale = spec.explicit_scale(given.rate, np.dtype(np.float32))
    on: dict[str, Any] = {"training_mode": True, "step": [STEP]}
    return ir.to_proto(
        dropout_ir(
            axes=given.axes, ratio=ratio, seed=given.seed, scale=scale, rng=rng, shape=given.x.shape, opset=21, **on
        )
    )


def runner(form: str, model: onnx.ModelProto) -> Callable[[np.ndarray], Any]:
    """Return a function x -> y, mask; it skips what a form or this environment does not have."""
    if form == "reference":
        node = op.read(ir.from_proto(model).graph[0])
        return lambda x: reference.spatial_dropout(
            x, node.axes, node.ratio, node.seed, STEP, True, node.scale, rng=node.rng
        )
    if form in ("native", "python", "body"):
        reason = {"native": native.missing_reason(), "python": python.missing_reason(), "body": None}[form]
        if reason is not None:
            pytest.skip(reason)
    try:
        if form in ("native", "python", "body"):
            session = sd.session(model, form)
        else:
            session = sd.session(sd.expand(model, form=form))
    except FormError as error:
        pytest.skip(str(error))
    return lambda x: session.run(["y", "mask"], {"x": x})


@cases
def test_the_recorded_gradients_are_zero_where_the_mask_drops(rng: str, row: int) -> None:
    mask = expected_mask(rng, load_case(rng, row))
    np.testing.assert_array_equal(recorded(rng, row) != 0, np.broadcast_to(mask, recorded(rng, row).shape))


@cases
@pytest.mark.parametrize("form", OWN_BITS)
def test_every_forms_gradient_is_kerass(form: str, rng: str, row: int) -> None:
    """A node is linear in x and mixes no entries: its values for ones are its Jacobian's diagonal."""
    given = load_case(rng, row)
    run = runner(form, model_of(rng, given))
    (y, mask), (slope, _) = run(given.x), run(np.ones_like(given.x))
    np.testing.assert_array_equal(mask, expected_mask(rng, given))
    gradient = given.weights.astype(np.float64) * y * slope
    np.testing.assert_allclose(gradient, recorded(rng, row), rtol=1e-6)
    # What a custom gradient computes from the mask output alone.
    told = np.where(mask, given.weights.astype(np.float64) * y * spec.explicit_scale(given.rate, np.dtype("f4")), 0)
    np.testing.assert_allclose(told, recorded(rng, row), rtol=1e-6)


@cases
@pytest.mark.parametrize("form", DRAWN)
def test_a_form_with_masks_of_its_own_has_kerass_gradient_where_both_keep(form: str, rng: str, row: int) -> None:
    given = load_case(rng, row)
    expanded = sd.expand(model_of(rng, given), form=form)
    (y, mask), (slope, again) = (sd.session(expanded).run(["y", "mask"], {"x": x}) for x in (given.x, given.x * 0 + 1))
    np.testing.assert_array_equal(mask, again)
    both = np.broadcast_to(mask & expected_mask(rng, given), given.x.shape)
    gradient = given.weights.astype(np.float64) * y * slope
    np.testing.assert_allclose(gradient[both], recorded(rng, row)[both], rtol=1e-6)
    assert not gradient[np.broadcast_to(~mask, given.x.shape)].any()


@cases
def test_jaxs_gradient_is_kerass(rng: str, row: int) -> None:
    jax = pytest.importorskip("jax", reason='needs JAX: pip install "onnx_spatialdrop[jax]"')
    pytest.importorskip("jaxonnxruntime", reason='needs jaxonnxruntime: pip install "onnx_spatialdrop[jax]"')
    from onnx_spatialdrop.training.jax import convert

    given = load_case(rng, row)
    function, _ = convert(model_of(rng, given), {"x": given.x})
    loss = jax.jit(lambda x: (given.weights * function({}, {"x": x})[0] ** 2).sum() / 2)
    np.testing.assert_allclose(jax.grad(loss)(given.x), recorded(rng, row), rtol=1e-6)


@cases
@pytest.mark.skipif(trainer.missing_reason() is not None, reason=str(trainer.missing_reason()))
@pytest.mark.parametrize("form", ["philox", "native"])
def test_the_trainers_gradient_is_kerass(form: str, rng: str, row: int) -> None:
    from training.trainer_gradients import gradient, through_the_mask

    given = load_case(rng, row)
    if form == "native":
        if native.missing_reason() is not None:
            pytest.skip(str(native.missing_reason()))
        model = through_the_mask(model_of(rng, given))
        got, mask = gradient(model, given.x, given.weights, native.get_library_path())
    else:
        try:
            model = sd.expand(model_of(rng, given), form=form, target="onnxruntime-training")
        except FormError as error:
            pytest.skip(str(error))
        got, mask = gradient(model, given.x, given.weights)
    np.testing.assert_array_equal(mask, expected_mask(rng, given))
    np.testing.assert_allclose(got, recorded(rng, row), rtol=1e-6)
