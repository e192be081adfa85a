"""The forms uniform and dropout draw from ONNX Runtime's generator: the distribution, the values, the switch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from building import assert_same_bits, dropout_model
from expanding import assert_binomial, draw, ort_session, with_float_ends
from onnx.reference import ReferenceEvaluator

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import expand

FORMS = [("uniform", 9), ("uniform", 10), ("uniform", 13), ("uniform", 18), ("uniform", 21)]
FORMS += [("dropout", 12), ("dropout", 13), ("dropout", 18), ("dropout", 22), ("dropout", 24)]
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
ON, OFF = np.array(True), np.array(False)


def ramp(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return numbers of both signs, none of them 0."""
    numbers = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64).reshape(shape)
    return (np.where(numbers % 2, numbers, -numbers) / 7).astype(spec.DTYPES[dtype])


def weighed(x: np.ndarray, mask: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return x times the scale or 0, in one multiplication that rounds once."""
    return x * np.where(mask, scale, np.zeros_like(scale)).astype(x.dtype)


@pytest.mark.parametrize(("form", "opset"), FORMS)
@pytest.mark.parametrize("shape", [("N", "C", "H", "W"), (500, 4, 3, 2), None], ids=["dynamic", "static", "no-shape"])
def test_rate_sharing_and_values(form: str, opset: int, shape: tuple[int | str, ...] | None) -> None:
    model = dropout_model(opset=opset, shape=shape or ("N", "C", "H", "W"), wrap=True)
    if shape is None:
        del model.graph.value_info[:]
        model.graph.input[0].type.tensor_type.ClearField("shape")
        model.graph.output[0].type.tensor_type.ClearField("shape")
        model.graph.output[1].type.tensor_type.ClearField("shape")
    expanded = expand(model, form=form)
    if shape is not None:  # the checker wants shapes on graph inputs
        onnx.checker.check_model(expanded, full_check=True)
    x = ramp((500, 4, 3, 2))
    y, mask = draw(ort_session(expanded), x, training_mode=ON)
    assert mask.shape == (500, 4, 1, 1)
    assert_binomial(int(mask.sum()), mask.size, 0.7)
    assert_same_bits(y, -weighed(np.abs(x), mask, spec.kept_scale(0.3, spec.explicit_scale(0.3), x.dtype)))


@pytest.mark.parametrize(("form", "opset"), FORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_no_optimisation_level_freezes_the_draw(form: str, opset: int, level: str) -> None:
    # Ops before and after matter: EliminateDropout spares what a graph input feeds.
    session = ort_session(expand(dropout_model(opset=opset, wrap=True, mask=False), form=form), level)
    x = ramp((500, 4, 2, 2))
    runs = [draw(session, x, training_mode=ON)[0] for _ in range(3)]
    for y in runs:
        maps = (y != 0).reshape(2000, 4)
        np.testing.assert_array_equal(maps.all(axis=1), maps.any(axis=1))
        assert_binomial(int(maps.all(axis=1).sum()), 2000, 0.7)
    agreements = int(((runs[0] != 0) == (runs[1] != 0))[:, :, 0, 0].sum())
    assert_binomial(agreements, 2000, 0.7**2 + 0.3**2)  # independent runs
    assert_same_bits(draw(session, x, training_mode=OFF)[0], -np.abs(x))


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize("shape", [("N", "C", "H", "W"), (500, 4, 2, 2)])
def test_constant_training_mode_leaves_no_switch(form: str, shape: tuple[int | str, ...]) -> None:
    expanded = expand(dropout_model(training_mode=True, step=[0], shape=shape, wrap=True, mask=False), form=form)
    assert [value.name for value in expanded.graph.input] == ["x"]
    assert not expanded.graph.initializer
    assert "Where" not in {node.op_type for node in expanded.graph.node}
    (y,) = draw(ort_session(expanded), ramp((500, 4, 2, 2)))
    assert_binomial(int((y[:, :, 0, 0] != 0).sum()), 2000, 0.7)


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize("dtype", list(spec.DTYPES))
@pytest.mark.parametrize("training_mode", [None, True])
def test_types(form: str, dtype: str, training_mode: bool | None) -> None:
    expanded = expand(dropout_model(dtype=dtype, training_mode=training_mode), form=form)
    onnx.checker.check_model(expanded, full_check=True)
    x = ramp((150, 4, 2, 2), dtype)
    if dtype == "bfloat16":
        y, mask = draw(ort_session(with_float_ends(expanded)), x.astype(np.float32), training_mode=ON)
        y = y.astype(x.dtype)
    else:
        y, mask = draw(ort_session(expanded), x, training_mode=ON)
    assert_binomial(int(mask.sum()), mask.size, 0.7)
    scale = spec.kept_scale(0.3, spec.explicit_scale(0.3, x.dtype), x.dtype)
    assert_same_bits(y, weighed(x, mask, scale))


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize(
    ("shape", "axes", "masked"),
    [
        ((900,), (), (900,)),
        ((30, 30), (-1,), (30, 1)),
        ((6, 40, 8), (1,), (6, 1, 8)),
        ((5, 6, 40, 3), (0, 3), (1, 6, 40, 1)),
        ((3, 4, 5, 20, 2), (-5, -3), (1, 4, 1, 20, 2)),
        ((30, 20, 2, 3, 2, 1), (2, 3, 4, 5), (30, 20, 1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_ranks_and_axes(
    form: str, shape: tuple[int, ...], axes: tuple[int, ...], masked: tuple[int, ...], static: bool
) -> None:
    declared = shape if static else [f"d{i}" for i in range(len(shape))]
    session = ort_session(expand(dropout_model(shape=declared, axes=axes, ratio=0.5), form=form))
    x = ramp(shape)
    y, mask = draw(session, x, training_mode=ON)
    assert mask.shape == masked
    assert_binomial(int(mask.sum()), mask.size, 0.5)
    assert_same_bits(y, weighed(x, mask, np.float32(2)))


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.001, 0.999])
def test_ratios_to_the_ends(form: str, ratio: float) -> None:
    session = ort_session(expand(dropout_model(ratio=ratio, wrap=True), form=form))
    x = ramp((50, 4, 2, 2))
    y, mask = draw(session, x, training_mode=ON)
    if ratio in (0.0, 1.0):
        assert (mask == (ratio == 0.0)).all()
    else:
        assert_binomial(int(mask.sum()), mask.size, 1 - ratio)
    assert (y[~np.broadcast_to(mask, y.shape)] == 0).all()
    off, kept = draw(session, x, training_mode=OFF)
    assert kept.all()
    assert_same_bits(off, -np.abs(x))


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (3, 0, 2, 2), (3, 4, 0, 2)])
def test_empty_tensors_give_empty_results(form: str, shape: tuple[int, ...]) -> None:
    session = ort_session(expand(dropout_model(shape=("N", "C", "H", "W"), mask=False), form=form))
    (y,) = draw(session, np.zeros(shape, np.float32), training_mode=ON)
    assert y.shape == shape


def test_an_own_scale_is_used() -> None:
    for form in ("uniform", "dropout"):
        x = ramp((30, 4, 2, 2))
        y, mask = draw(ort_session(expand(dropout_model(scale=3.0), form=form)), x, training_mode=ON)
        assert_same_bits(y, weighed(x, mask, np.float32(3)))


@pytest.mark.parametrize("form", ["uniform", "dropout"])
def test_an_unknown_type_is_followed(form: str) -> None:
    text = """<ir_version: 9, opset_import: ["": 18, "own": 1, "onnx_spatialdrop": 1]>
    g (float16[N, C, H, W] x, bool t) => (float16[N, C, H, W] y) { y = own.F (x, t) }
    <domain: "own", opset_import: ["": 18, "onnx_spatialdrop": 1]> F (x, t) => (y) {
      s = Constant <value_ints = [-1]> ()
      y, m = onnx_spatialdrop.SpatialDropout <axes = [2, 3], ratio = 0.3, seed = 7, scale = 1.4287109375> (x, t, s)
    }"""
    model = onnx.parser.parse_model(text)
    x = ramp((500, 4, 2, 2), "float16")
    y = draw(ort_session(expand(model, form=form)), x, t=ON)[0]
    mask = (y != 0).any(axis=(2, 3), keepdims=True)
    assert_binomial(int(mask.sum()), mask.size, 0.7)
    assert_same_bits(y, weighed(x, mask, np.float16(1.4287109375)))
    with pytest.raises(FormError) as error:
        expand(onnx.parser.parse_model(text.replace('"": 18', '"": 14')), form=form)
    assert str(error.value) == (
        "the SpatialDropout node that computes 'y': the type of X is unknown, and opset 14 has no CastLike to follow "
        "it; declare the type of X (value_info), or convert the model's opset to 15 or newer"
    )


def test_shape_inference_finds_a_type_that_the_file_does_not_say() -> None:
    model = dropout_model(opset=13, dtype="float64", wrap=True)
    del model.graph.value_info[:]
    expanded = expand(model, form="uniform")
    assert "CastLike" not in {node.op_type for node in expanded.graph.node}
    assert not expanded.graph.value_info
    y, mask = draw(ort_session(expanded), ramp((150, 4, 2, 2), "float64"), training_mode=ON)
    assert y.dtype == np.float64
    assert_binomial(int(mask.sum()), mask.size, 0.7)


@pytest.mark.parametrize("form", ["uniform", "dropout"])
def test_the_reference_evaluator_runs_them(form: str) -> None:
    evaluator = ReferenceEvaluator(expand(dropout_model(), form=form, target="reference"))
    x = ramp((150, 4, 2, 2))
    feeds = {"x": x, "training_mode": ON}
    y, mask = evaluator.run(None, feeds)
    assert_binomial(int(mask.sum()), mask.size, 0.7)
    assert_same_bits(y, weighed(x, mask, np.float32(spec.explicit_scale(0.3))))
    assert_same_bits(evaluator.run(None, {**feeds, "training_mode": OFF})[0], x)


def test_first_draws_are_no_smaller_than_others() -> None:
    """Small seeds start ONNX Runtime's generator near 0, so that entry 0 of the first run would always be kept."""
    kept = 0
    for seed in range(200):
        session = ort_session(expand(dropout_model(seed=seed, ratio=0.9, shape=(1, 1, 2, 2)), form="uniform"))
        kept += int(draw(session, np.ones((1, 1, 2, 2), np.float32), training_mode=ON)[1].sum())
    assert_binomial(kept, 200, 0.1)


@pytest.mark.parametrize("target", ["onnxruntime-training", "onnx2torch"])
def test_for_trainers_the_value_of_dropout_is_used(target: str) -> None:
    expanded = expand(dropout_model(wrap=True, mask=False, scale=0.0, opset=18), target=target)
    (dropout,) = (node for node in expanded.graph.node if node.op_type == "Dropout")
    used = {name for node in expanded.graph.node for name in node.input}
    assert dropout.output[0] in used
    # onnx2torch knows neither seeds nor a second output: it would give all samples the first one's mask.
    assert len(dropout.output) == (1 if target == "onnx2torch" else 2)
    assert [a.name for a in dropout.attribute] == ([] if target == "onnx2torch" else ["seed"])
    y = ReferenceEvaluator(expanded).run(None, {"x": ramp((150, 4, 2, 2)), "training_mode": ON})[0]
    assert_binomial(int((y[:, :, 0, 0] != 0).sum()), 600, 0.7)
    np.testing.assert_allclose(y[y != 0], -np.abs(ramp((150, 4, 2, 2)))[y != 0] / 0.7, rtol=2e-7)


def test_trainers_cannot_have_another_scale_or_ratio_1() -> None:
    with pytest.raises(FormError) as error:
        expand(dropout_model(scale=3.0), target="onnx2torch")
    assert str(error.value) == (
        "node 'drop': scale is 3, but Dropout multiplies by 1 / (1 - ratio) = 1.42857 and onnx2torch switches only "
        "that off in evaluation; use form='uniform', or scale=0"
    )
    with pytest.raises(FormError) as error:
        expand(dropout_model(ratio=1.0), target="training")
    assert str(error.value) == (
        "node 'drop': ratio is 1, which onnxruntime-training's Dropout refuses; lower the ratio, or use form='uniform'"
    )


@pytest.mark.parametrize("form", ["uniform", "dropout"])
def test_every_entry_of_a_small_mask_is_drawn_at_the_ratio(form: str) -> None:
    """ONNX Runtime's Dropout gives the first entry that it draws nearly the same number in every run."""
    from building import dropout_model

    import onnx_spatialdrop as sd

    session = sd.session(sd.expand(dropout_model(opset=20, shape=("N", 3), axes=(), ratio=0.5), form=form))
    feeds = {"x": np.ones((1, 3), np.float32), "training_mode": np.array(True)}
    kept = sum(session.run(["mask"], feeds)[0].astype(int) for _ in range(600))
    assert (np.abs(kept - 300) < 6 * np.sqrt(150)).all()
