"""The dialects of rng in OpenVINO's CPU plugin, bit for bit."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import onnx
import pytest
from building import dropout_model
from expanding import assert_binomial
from keras_draws import SEEDS, STEPS, draws

from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator.reference import dropout_mask
from onnx_spatialdrop.passes.expand import expand

openvino = pytest.importorskip("openvino", reason="openvino is not installed (pip install openvino)")
pytestmark = pytest.mark.openvino

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
FRAMEWORKS = spec.RNGS[1:]
PAIRS = [(rng, name) for rng in FRAMEWORKS for name in dialects.DIALECTS[rng].tests]
RECORDED = [(rng, dtype) for rng in SEEDS for dtype in ("float16", "bfloat16", "float32")]


def compiled(**arguments: Any) -> Any:
    core = openvino.Core()
    model = expand(dropout_model(**arguments), target="openvino")
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", EXACT)


def mask_of(model: Any, x: np.ndarray, step: list[int]) -> np.ndarray:
    given = x
    if x.dtype == spec.DTYPES["bfloat16"]:
        given = openvino.Tensor(x.view(np.uint16).copy(), x.shape, openvino.Type.bf16)
    results = list(model({"x": given, "training_mode": np.array(True), "step": np.array(step)}).values())
    return results[1].astype(bool)


@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
@pytest.mark.parametrize("seed", [7, -12345678901234567, 2**31 - 2])
def test_masks_of_every_dialect_type_and_step(rng: str, dtype: str, seed: int) -> None:
    model, x = compiled(dtype=dtype, rng=rng, seed=seed, ratio=0.35), np.ones((5, 4, 3, 2), spec.DTYPES[dtype])
    for step in ([0], [5], [2**24 + 1], [2**31 - 3], [2**31 - 2], [2**31 - 1], [5, 4, 3, 2**30 + 7, 1]):
        wanted = dropout_mask(x.shape, (2, 3), 0.35, seed, step, rng=rng, dtype=x.dtype)
        np.testing.assert_array_equal(mask_of(model, x, step), wanted, str(step))


@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_rates_and_long_rows(rng: str) -> None:
    for k in range(0, 21, 4):
        model, x = compiled(rng=rng, ratio=k / 20, shape=("N", "C"), axes=()), np.ones((300, 70), np.float32)
        wanted = dropout_mask(x.shape, (), k / 20, 7, 3, rng=rng)
        np.testing.assert_array_equal(mask_of(model, x, [3]), wanted, str(k))


@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_a_negative_step_is_a_fresh_draw_every_run(rng: str) -> None:
    model, x = compiled(ratio=0.5, rng=rng), np.ones((100, 4, 2, 2), np.float32)
    masks = [mask_of(model, x, [-1]) for _ in range(12)]
    assert len({mask.tobytes() for mask in masks}) == 12
    assert_binomial(sum(int(mask.sum()) for mask in masks), 12 * 400, 0.5)


def check_recorded(rng: str, dtype: str, every: int) -> None:
    calls = draws(rng, dtype)
    for group in islice(iter(lambda: list(islice(calls, STEPS)), []), every // 2, None, every):
        one = group[0]
        ratio = dialects.ratio_for(one.rate, rng, spec.DTYPES[dtype])
        model = compiled(dtype=dtype, shape=one.shape, axes=one.axes, ratio=ratio, seed=one.seed, rng=rng, scale=1.0)
        for call in group:
            mask = mask_of(model, np.ones(one.shape, spec.DTYPES[dtype]), [call.step])
            np.testing.assert_array_equal(mask, call.mask, str(call[2:5]))


@pytest.mark.parametrize(("rng", "dtype"), RECORDED)
def test_some_layers_that_keras_drew(rng: str, dtype: str) -> None:
    check_recorded(rng, dtype, 209)


@pytest.mark.slow
@pytest.mark.parametrize(("rng", "dtype"), RECORDED)
def test_every_layer_that_keras_drew(rng: str, dtype: str) -> None:
    check_recorded(rng, dtype, 1)


def test_where_takes_int32_through_float32() -> None:
    """The trap for which the int32 body puts words together by masks."""
    text = """<ir_version: 8, opset_import: ["": 18]>
    g (int64[1] n, int32[1] a, int32[1] b) => (int32[1] c) {
      zero = Constant <value = int64 {0}> ()
      negative = Less (n, zero)
      low = Cast <to = 6> (n)
      chosen = Where (negative, a, b)
      c = Add (chosen, low)
    }"""
    core = openvino.Core()
    model = core.compile_model(core.read_model(onnx.parser.parse_model(text).SerializeToString()), "CPU", EXACT)
    result = model({"n": np.array([0]), "a": np.array([5], np.int32), "b": np.array([2**24 + 1], np.int32)})
    assert next(iter(result.values())).tolist() == [2**24]  # not 2**24 + 1
