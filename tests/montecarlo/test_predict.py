"""MCDropout: equal to whole runs, independent of batches, chunks and kernels, and loud where nothing is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from montecarlo.running import whole_runs
from montecarlo.test_onefile import ALL, digits, small, softmax, statistics

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import KernelError, VerifyError
from onnx_spatialdrop.montecarlo.feeding import first_steps
from onnx_spatialdrop.runtime.session import choose

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("kernel", ["native", "python", "body"])
def test_every_kernel_gives_the_numbers_of_whole_runs(kernel: Any) -> None:
    try:
        choose(kernel)
    except KernelError as error:
        pytest.skip(str(error))
    model, feeds = digits("digits_torch")
    mc = sd.MCDropout(model, samples=9, kernel=kernel)
    result = mc.predict(feeds, ids=[4, 0, 7, 7, 2], check=True)
    p = softmax(whole_runs(model, feeds, first_steps([4, 0, 7, 7, 2], mc.strata), 9, mc.strata), 2)
    for name, expected in statistics(p, 1).items():
        np.testing.assert_allclose(getattr(result, name), expected, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(result.quantiles([0.1, 0.9]), np.quantile(p, [0.1, 0.9], axis=0), atol=1e-6)
    assert (result.mutual_information >= 0).all()


def test_a_rows_numbers_do_not_depend_on_its_batch_or_on_chunks() -> None:
    model, feeds = digits("digits_torch", 8)
    whole = sd.MCDropout(model).predict(feeds["image"])
    for chunk in (1, 7, 31):
        part = sd.MCDropout(model, chunk=chunk).predict(feeds["image"][5:], ids=[5, 6, 7])
        np.testing.assert_allclose(part.mean, whole.mean[5:], atol=1e-6)
        np.testing.assert_allclose(part.mutual_information, whole.mutual_information[5:], atol=1e-6)


def test_the_same_call_gives_the_same_numbers_and_a_fresh_one_others() -> None:
    model, feeds = digits("digits_torch")
    mc = sd.MCDropout(model)
    once, again = mc.predict(feeds), mc(feeds)
    np.testing.assert_array_equal(once.mean, again.mean)
    assert np.abs(mc.predict(feeds, fresh=True).mean - once.mean).max() > 1e-3
    assert np.abs(sd.MCDropout(model, seed=5).predict(feeds).mean - once.mean).max() > 1e-3
    np.testing.assert_array_equal(
        sd.MCDropout(model, seed=5).predict(feeds).mean, sd.MCDropout(model, seed=5).predict(feeds).mean
    )


def test_more_samples_begin_with_the_fewer_ones() -> None:
    model, feeds = digits("digits_torch", 3)
    few = sd.MCDropout(model, samples=7).predict(feeds, draws=True)
    many = sd.MCDropout(model, samples=14).predict(feeds, draws=True)
    assert few.draws is not None
    assert many.draws is not None
    np.testing.assert_allclose(many.draws[:7], few.draws, atol=1e-6)


def test_rows_that_are_sure_stop_and_change_no_other_row() -> None:
    model, feeds = digits("digits_torch", 40)
    mc = sd.MCDropout(model, samples=310)
    stopped = mc.predict(feeds, tolerance=0.02)
    assert stopped.samples.min() < stopped.samples.max()
    for row in (int(stopped.samples.argmin()), int(stopped.samples.argmax())):
        alone = mc.predict(feeds["image"][row : row + 1], ids=[row], samples=int(stopped.samples[row]))
        np.testing.assert_allclose(alone.mean[0], stopped.mean[row], atol=1e-6)
        np.testing.assert_allclose(alone.entropy[0], stopped.entropy[row], atol=1e-5)
    with pytest.raises(sd.SpecError, match="cannot be kept"):
        mc.predict(feeds, tolerance=0.02, draws=True)


def test_draws_that_are_all_equal_are_an_error() -> None:
    model = small("float[N,4] y", "z = Sub (d, d) y = MatMul (z, u)")
    with pytest.raises(sd.SpecError, match="all draws of 'y' are equal"):
        sd.MCDropout(model).predict(np.ones((2, 6), np.float32))


def test_a_network_that_is_very_sure_is_no_error() -> None:
    model = small("float[N,4] y", "k = Constant <value_float = 40.0> () z = MatMul (d, u) y = Mul (z, k)")
    result = sd.MCDropout(model).predict(np.full((2, 6), 9, np.float32))
    assert result.mean.shape == (2, 4)


def test_a_model_whose_samples_meet_runs_once_a_draw_and_is_right() -> None:
    model = small("float[N,4] y", "m = ReduceMean <keepdims = 1> (d) s = Sub (d, m) y = MatMul (s, u)")
    mc = sd.MCDropout(model, samples=6)
    assert "reduces over the samples" in mc.ends
    x = np.random.default_rng(2).random((3, 6)).astype(np.float32)
    mc.predict(x, check=True)


def test_check_finds_what_is_wrong() -> None:
    model, feeds = digits("digits_torch")
    mc = sd.MCDropout(model, samples=4)
    mc._engine.whole = sd.MCDropout(model, samples=4, seed=1)._engine.whole
    with pytest.raises(VerifyError, match="differs by"):
        mc.predict(feeds, check=True)


def test_several_inputs_by_name_or_in_order_and_a_result_for_each_output() -> None:
    text = """
    <ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
    g (float[N,6] x, float[N,6] z, bool training_mode, int64[steps] step) => (float[N,6] a, float[N,6] b, float[N,6] c)
    <bool training_mode = {0}, int64[1] step = {-1}>
    { d, mask = onnx_spatialdrop.SpatialDropout <axes: ints = [], ratio = 0.4, seed = 11, scale = 0.0>
        (x, training_mode, step)
      a = Add (d, z) b = Mul (d, z) c = Sub (x, z) }"""
    model = onnx.parser.parse_model(text)
    x, z = np.random.default_rng(1).random((2, 3, 6)).astype(np.float32)
    mc = sd.MCDropout(model, task={"a": "regression", "b": "classification"})
    named, ordered = mc.predict({"x": x, "z": z}), mc.predict([x, z])
    assert list(named) == ["a", "b"]
    np.testing.assert_array_equal(named["b"].entropy, ordered["b"].entropy)
    np.testing.assert_array_equal(named.fixed["c"], x - z)
    with pytest.raises(sd.SpecError, match="'a' is regression, which has no entropy"):
        _ = named.entropy
    with pytest.raises(sd.SpecError, match="input 'z' is missing"):
        mc.predict({"x": x})
    with pytest.raises(sd.SpecError, match="several inputs"):
        mc.predict(x)


@pytest.mark.parametrize(
    ("ids", "text"),
    [([0.5] * 5, "float64"), ([0, 1], "5 rows"), ([-1, 0, 1, 2, 3], r"\[-1, 3\]"), ([2**44] * 5, "allowed: 0 to")],
)
def test_ids_that_do_not_fit_are_refused(ids: Any, text: str) -> None:
    model, feeds = digits("digits_torch")
    with pytest.raises(sd.SpecError, match=text):
        sd.MCDropout(model).predict(feeds, ids=ids)


def test_ids_are_refused_where_a_node_draws_for_the_whole_batch() -> None:
    model = small("float[N,6] y", "y = Identity (d)")
    model.graph.node[0].attribute[0].ints[:] = [0]
    mc = sd.MCDropout(model, task="regression")
    with pytest.raises(sd.SpecError, match="axis 0 is shared"):
        mc.predict(np.ones((2, 6), np.float32), ids=[0, 1])
    assert mc.predict(np.ones((2, 6), np.float32)).mean.shape == (2, 6)


def test_statistics_that_were_not_asked_for_say_so() -> None:
    model, feeds = digits("digits_torch")
    result = sd.MCDropout(model, statistics=["mean", "entropy"]).predict(feeds, draws=False)
    assert result.entropy.shape == (5,)
    with pytest.raises(sd.SpecError, match="'mutual_information'"):
        _ = result.mutual_information
    with pytest.raises(sd.SpecError, match="draws=True"):
        result.quantiles(0.5)
    assert set(ALL) >= {"mean", "entropy"}
