"""to_inference on batch normalization in training mode: it uses what it learned."""

from __future__ import annotations

import numpy as np
import pytest
from inference import RANDOM, both_ways, parse, results

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import TrainingLeftWarning

NORM = "scale, bias, mean, var"
LEARNED = "<float[3] scale = {1, 2, 3}, float[3] bias = {0, 1, 2}, float[3] mean = {1, 1, 2}, float[3] var = {4, 1, 9}>"


@pytest.mark.parametrize("opset", [14, 15, 18])
def test_batch_norm_in_training_mode_uses_what_it_learned(opset: int) -> None:
    text = f"g (float[N,3,2] x) => (float[N,3,2] y, float[3] m, float[3] v) {LEARNED} {{"
    node = f"y, m, v = BatchNormalization <training_mode: int = 1, momentum: float = 0.9> (x, {NORM}) }}"
    got = both_ways(parse(f"{text} {node}", opset))
    x = RANDOM.standard_normal((4, 3, 2)).astype(np.float32)
    y, mean, var = results(got, x=x)
    scale, bias, m, v = (np.array(a, np.float32).reshape(3, 1) for a in ((1, 2, 3), (0, 1, 2), (1, 1, 2), (4, 1, 9)))
    np.testing.assert_allclose(y, (x - m) / np.sqrt(v + 1e-5) * scale + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mean, m.reshape(-1))
    np.testing.assert_array_equal(var, v.reshape(-1))
    np.testing.assert_allclose(results(got, x=x[:1])[0], y[:1], rtol=1e-6)  # a sample alone is what it is in a batch


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 13])
def test_batch_norm_of_old_opsets(opset: int) -> None:
    given = {1: "<consumed_inputs: ints = [0, 0, 0, 1, 1], is_test: int = 0>", 6: "<is_test: int = 0>"}.get(opset, "")
    text = f"g (float[N,3,2] x) => (float[N,3,2] y) {LEARNED} {{ h = Abs(x)"
    got = both_ways(parse(f"{text} y, m, v, sm, sv = BatchNormalization {given} (h, {NORM}) }}", opset, 4))
    node = got.graph.node[1]
    assert list(node.output) == ["y"]
    assert [a.i for a in node.attribute if a.name == "is_test"] == ([1] if opset < 7 else [])


def test_batch_norm_whose_saved_mean_is_used_stays_and_is_named() -> None:
    text = f"g (float[N,3,2] x) => (float[N,3,2] y, float[3] sm) {LEARNED} {{"
    model = parse(f"{text} [norm] y, m, v, sm, sv = BatchNormalization (x, {NORM}) }}", 9, 4)
    with pytest.warns(TrainingLeftWarning, match="'norm' .BatchNormalization.: its saved mean or variance is used"):
        got = sd.to_inference(model)
    assert got == model


def test_batch_norm_in_inference_mode_stays_as_it_is() -> None:
    node = f"y = BatchNormalization <training_mode: int = 0> (x, {NORM})"
    model = parse(f"g (float[N,3,2] x) => (float[N,3,2] y) {LEARNED} {{ {node} }}", 15)
    assert sd.to_inference(model) == model
