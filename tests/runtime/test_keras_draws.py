"""The masks that Keras's own layers drew, bit for bit from both kernels, the body and both written-out forms.

Every rate, seed, step and layer with -m slow; by default a few of each dialect and type.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import onnx
import pytest
from building import dropout_model
from expanding import draw, ort_session, with_float_ends
from keras_draws import SEEDS, STEPS, Draw, draws
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator.dialects import ratio_for
from onnx_spatialdrop.operator.spec import DTYPES

PAIRS = [(rng, dtype) for rng in SEEDS for dtype in ("float16", "bfloat16", "float32")]
Run = Callable[[np.ndarray, int], np.ndarray]


def layers(rng: str, dtype: str, every: int) -> Iterator[tuple[onnx.ModelProto, list[Draw]]]:
    """Yield a model of one recorded layer with its STEPS calls, one layer in ``every``."""
    calls = draws(rng, dtype)
    for group in islice(iter(lambda: list(islice(calls, STEPS)), []), every // 2, None, every):
        one = group[0]
        ratio = ratio_for(one.rate, rng, DTYPES[dtype])
        yield (
            dropout_model(
                dtype=dtype, shape=one.shape, axes=one.axes, ratio=ratio, seed=one.seed, scale=1.0, rng=rng, opset=18
            ),
            group,
        )


def in_onnxruntime(model: onnx.ModelProto, session: Any = ort_session) -> Run:
    made = session(model)

    def run(x: np.ndarray, step: int) -> np.ndarray:
        return draw(made, x, training_mode=np.array(True), step=np.array([step]))[1]

    return run


def in_evaluator(model: onnx.ModelProto) -> Run:
    evaluator = ReferenceEvaluator(model)

    def run(x: np.ndarray, step: int) -> np.ndarray:
        with np.errstate(divide="ignore"):  # the scale of rate 1, which nothing is multiplied by
            return evaluator.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([step])})[1]

    return run


RUNNERS: dict[str, Callable[[onnx.ModelProto], Run]] = {
    "native": lambda model: in_onnxruntime(model, lambda each: sd.session(each, "native")),
    "python": lambda model: in_onnxruntime(model, lambda each: sd.session(each, "python")),
    "body": lambda model: in_onnxruntime(sd.attach(model), lambda each: ort_session(each, "ORT_DISABLE_ALL")),
    "philox": lambda model: in_onnxruntime(sd.expand(model, form="philox")),
    "philox-int32": lambda model: in_onnxruntime(sd.expand(model, form="philox-int32")),
    "body, ReferenceEvaluator": lambda model: in_evaluator(sd.attach(model)),
    "philox, ReferenceEvaluator": lambda model: in_evaluator(sd.expand(model, form="philox", target="reference")),
    "philox-int32, ReferenceEvaluator": lambda model: in_evaluator(
        sd.expand(model, form="philox-int32", target="reference")
    ),
}


def check(rng: str, dtype: str, runner: str, every: int) -> None:
    if runner == "native" and native.missing_reason() is not None:
        pytest.skip("the native library is not built here")
    count = 0
    for model, calls in layers(rng, dtype, every):
        narrow = dtype == "bfloat16" and "Reference" not in runner  # onnxruntime's Python API takes no bfloat16
        run = RUNNERS[runner](with_float_ends(model) if narrow else model)
        x = np.ones(calls[0].shape, np.float32 if narrow else DTYPES[dtype])
        for call in calls:
            np.testing.assert_array_equal(run(x, call.step), call.mask, str(call[2:5]))
            count += 1
    assert count >= 5 * (420 // every)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_some_recorded_layers(rng: str, dtype: str, runner: str) -> None:
    check(rng, dtype, runner, 209)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_every_recorded_layer(rng: str, dtype: str, runner: str) -> None:
    check(rng, dtype, runner, 1)
