"""The native kernel gives the reference's bits: every type, layout, step and instruction set."""

import math

import numpy as np
import pytest
from native_models import assert_right, drop_node, make_model, make_session, numbers, run

from onnx_spatialdrop.operator.spec import fresh_step

DTYPES = ["float16", "bfloat16", "float32", "float64"]
PATHS = ["portable", "avx2", "avx512"]  # one that the processor lacks is ignored, and the best is taken
LAYOUTS = {
    "NCHW": ((3, 5, 6, 7), [2, 3]),
    "NHWC": ((3, 6, 7, 5), [1, 2]),
    "NTC": ((4, 50, 300), [1]),
    "NCDHW": ((2, 3, 4, 5, 6), [-1, -2, -3]),
    "large maps": ((2, 3, 40, 50), [2, 3]),
    "long rows": ((2, 3, 9000), [1]),
    "long rows, small maps": ((2, 3, 2500, 3), [1, 3]),
    "maps of 40": ((2, 300, 40), [2]),
    "interleaved": ((4, 3, 6, 5), [0, 2]),
    "interleaved, large maps": ((3, 2, 5, 1100), [1, 3]),
    "all shared": ((2, 3, 4), [0, 1, 2]),
    "element-wise": ((5, 77), []),
    "vector": ((1000,), []),
    "ones": ((1, 1, 1), [0]),
    "rank 16": ((2, 1, 3, 2, 1, 2, 1, 3, 2, 1, 1, 2, 2, 1, 2, 3), [1, 3, 7, -1, -5]),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type(layout: str, dtype: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_CPU", path)
    shape, axes = LAYOUTS[layout]
    x = numbers(shape, dtype)
    for ratio, scale in ((0.3, 0.0), (0.5, 1.25), (0.0, 0.0), (1.0, 0.0), (0.2, -3.7e-5)):
        attributes = {"axes": axes, "ratio": ratio, "seed": -5, "scale": scale}
        both = make_session(make_model([drop_node("x", "y", "mask", **attributes)], dtype, shape, ("y", "mask")))
        alone = make_session(make_model([drop_node("x", "y", "", **attributes)], dtype, shape))
        steps = [[2**40 + 1]] if 0 in axes else [[2**40 + 1], list(range(shape[0]))]
        for step in steps:
            y, mask = run(both, x, True, step)
            assert_right(x, y, mask, **attributes, step=step)
            assert_right(x, run(alone, x, True, step)[0], None, **attributes, step=step)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inference_returns_x_itself(dtype: str) -> None:
    x = numbers((3, 40, 50), dtype)
    y, mask = run(make_session(make_model([drop_node("x", "y", "mask")], dtype, outputs=("y", "mask"))), x, False)
    if dtype == "bfloat16":  # the casts around it may touch NaNs
        x, y = np.where(np.isnan(x), 0, x).astype(x.dtype), np.where(np.isnan(y), 0, y).astype(x.dtype)
    assert y.tobytes() == x.tobytes()
    assert mask.all()
    assert mask.shape == (3, 1, 50)


def test_payloads_of_nans_survive_inference() -> None:
    words = np.array([0x7FA00001, 0xFFC12345, 0x7F800001, 0xFF800000], np.uint32)
    y = run(make_session(make_model([drop_node("x", "y", "", axes=[])])), words.view(np.float32), False)[0]
    np.testing.assert_array_equal(y.view(np.uint32), words)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0,), (0, 0)])
@pytest.mark.parametrize("training", [True, False])
def test_empty_tensors_give_empty_results(shape: tuple[int, ...], training: bool) -> None:
    x = np.zeros(shape, np.float32)
    for axes in ([], [0], [len(shape) - 1], list(range(len(shape)))):
        session = make_session(make_model([drop_node("x", "y", "mask", axes=axes)], outputs=("y", "mask")))
        y, mask = run(session, x, training)
        # A mask can have entries where X has none: shape (2, 0, 4) with axes [1].
        assert_right(x, y, mask, axes=axes, ratio=0.5, seed=7, step=[3], training_mode=training)


def test_one_step_per_sample_of_an_empty_batch() -> None:
    session = make_session(make_model([drop_node("x", "y", "mask")], outputs=("y", "mask")))
    y, mask = run(session, np.zeros((0, 3), np.float32), True, np.zeros(0, np.int64))
    assert y.shape == (0, 3)
    assert mask.shape == (0, 1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NTC", "interleaved"])
def test_bits_do_not_depend_on_the_number_of_threads(layout: str) -> None:
    # Past 8 MiB, where work is shared out and stores bypass the caches.
    shape = {"NCHW": (3, 200, 61, 83), "NHWC": (3, 61, 83, 200), "NTC": (40, 200, 301), "interleaved": (9, 41, 83, 99)}
    axes = LAYOUTS[layout][1]
    x = np.random.default_rng(0).standard_normal(shape[layout]).astype(np.float32)
    model = make_model([drop_node("x", "y", "mask", axes=axes, ratio=0.3)], outputs=("y", "mask"))
    results = [run(make_session(model, threads), x) for threads in (1, 2, 3)]
    assert_right(x, *results[0], axes=axes, ratio=0.3, seed=7, step=[3])
    for result in results[1:]:
        assert result[0].tobytes() == results[0][0].tobytes()
        assert result[1].tobytes() == results[0][1].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_default_scale_is_rounded_as_the_reference_does(dtype: str) -> None:
    x = numbers((1, 64), dtype)
    for k in range(1, 1000, 7):
        attributes = {"axes": [], "ratio": k / 1000, "seed": k}
        y = run(make_session(make_model([drop_node("x", "y", "", **attributes)], dtype)), x)[0]
        assert_right(x, y, None, **attributes, step=[3])


@pytest.mark.parametrize("strata", [1, 31])
def test_a_fresh_draw_counts_training_runs_from_the_sessions_creation(strata: int) -> None:
    model = make_model([drop_node("x", "y", "mask", strata=strata)], outputs=("y", "mask"))
    x = np.ones((8, 9), np.float32)
    for _ in range(2):
        session = make_session(model)
        for count in range(3):
            run(session, x, False, -1)  # inference takes no number
            run(session, x, True, 99)  # nor does a given step
            sequence = -(2 ** (20 * count))
            y, mask = run(session, x, True, sequence)
            step = [fresh_step(sequence, count, strata)]
            assert_right(x, y, mask, axes=[1], ratio=0.5, seed=7, strata=strata, step=step)


def test_a_dropped_nan_is_zero_and_a_kept_one_stays() -> None:
    x = np.full((64,), np.nan, np.float32)
    y, mask = run(make_session(make_model([drop_node("x", "y", "mask", axes=[])], outputs=("y", "mask"))), x)
    assert 0 < mask.sum() < 64
    np.testing.assert_array_equal(np.isnan(y), mask)
    np.testing.assert_array_equal(np.signbit(y[~mask]), False)
    assert not math.isnan(float(y[~mask].sum()))
