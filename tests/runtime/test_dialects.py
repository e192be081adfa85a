"""Sessions draw what every dialect of rng says, for every type that it has a test for."""

import numpy as np
import onnxruntime
import pytest
from building import assert_same_bits, dropout_model
from expanding import with_float_ends

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import dialects, spec

PAIRS = [(rng, name) for rng, dialect in dialects.DIALECTS.items() for name in dialect.tests]
KERNELS = [
    pytest.param(name, marks=pytest.mark.skipif(
        name == "native" and native.missing_reason() is not None, reason="the native library is not built here"
    ))
    for name in ("native", "python", "body")
]  # fmt: skip
TRAINING = np.array(True)


def check(session: onnxruntime.InferenceSession, rng: str, dtype: str, step: list[int], training: bool) -> None:
    """Compare one run of a session of a ``dropout_model`` with the reference; bfloat16 goes in and out as float32."""
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(spec.DTYPES[dtype])
    x.flat[:3] = np.nan, -np.inf, -0.0
    feeds = {"training_mode": np.array(training), "step": np.array(step)}
    y, mask = session.run(None, {"x": x.astype(np.float32) if dtype == "bfloat16" else x, **feeds})
    scale = spec.explicit_scale(0.3, x.dtype)
    expected = reference.spatial_dropout(x, (2, 3), 0.3, 7, step, training, scale, rng=rng)
    assert_same_bits(y.astype(x.dtype), expected[0])
    np.testing.assert_array_equal(mask, expected[1])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_every_dialect_and_type(kernel: str, rng: str, dtype: str) -> None:
    model = dropout_model(dtype=dtype, rng=rng)
    session = sd.session(with_float_ends(model) if dtype == "bfloat16" else model, kernel)
    for step in ([3], [2**40 + 1], [5, 0, 2**33]):
        check(session, rng, dtype, step, training=True)
    check(session, rng, dtype, [3], training=False)


@pytest.mark.skipif(native.missing_reason() is not None, reason="the native library is not built here")
@pytest.mark.parametrize("rng", spec.RNGS)
def test_a_registered_kernel_wins_over_the_body_in_every_dialect(rng: str) -> None:
    """The kernel counts from 0 where the step is negative; the body takes a number of its own."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sd.register(options)
    model = sd.attach(dropout_model(shape=("N", 50, 1, 1), rng=rng))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    mask = session.run(["mask"], {"x": np.ones((2, 50, 1, 1), np.float32), "training_mode": TRAINING})[0]
    np.testing.assert_array_equal(mask, reference.dropout_mask((2, 50, 1, 1), [2, 3], 0.3, 7, 0, rng=rng))


@pytest.mark.parametrize("rng", spec.RNGS)
def test_a_negative_step_counts_in_every_dialect(rng: str) -> None:
    session = sd.session(dropout_model(shape=("N", 50, 1, 1), rng=rng), "python")
    feeds = {"x": np.ones((2, 50, 1, 1), np.float32), "training_mode": TRAINING}
    for step in range(4):
        mask = session.run(["mask"], feeds)[0]
        np.testing.assert_array_equal(mask, reference.dropout_mask((2, 50, 1, 1), [2, 3], 0.3, 7, step, rng=rng))


@pytest.mark.parametrize("kernel", ["python", "body"])
@pytest.mark.parametrize("rng", ["keras_tf", "keras_tf_xla"])
def test_a_type_that_a_dialect_lacks_is_refused_when_the_session_is_made(kernel: str, rng: str) -> None:
    model = dropout_model(dtype="float64")
    next(a for a in model.graph.node[0].attribute if a.name == "rng").s = rng.encode()
    with pytest.raises(sd.SpecError, match=f"node 'drop': rng '{rng}' draws no masks for X of type float64; allowed"):
        sd.session(model, kernel)
