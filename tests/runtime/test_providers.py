"""Sessions on other providers than the CPU: one native node draws all masks, and everything else is left to them."""

from __future__ import annotations

import collections
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import assert_same_bits, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.lower import MASKS_OP, LowerPass
from onnx_spatialdrop.runtime import session as runtime

pytestmark = pytest.mark.skipif(native.missing_reason() is not None, reason="the native library is not there")

ON = np.array(True)
CHAIN = """
<ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
chain (float[N,6,H] x, bool training_mode, int64[steps] step) => (float[N,6,H] y, bool[N,6,1] m2)
<bool training_mode = {0}, int64[1] step = {-1}, float[N,6,H] a>
{
  h, m = onnx_spatialdrop.SpatialDropout <axes: ints = [], ratio = 0.5, seed = 3> (x, training_mode, step)
  a = Neg (h)
  y, m2 = onnx_spatialdrop.SpatialDropout <axes = [2], ratio = 0.2, seed = 4, strata = 31> (a, training_mode, step)
}
"""


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    return io.rewrite(model, None, LowerPass(kernel="native").call)[0]


def native_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sd.register(options)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def wanted(x: np.ndarray, step: Any) -> list[np.ndarray]:
    h, _ = spatial_dropout(x, [], 0.5, 3, step)
    return list(spatial_dropout(-h, [2], 0.2, 4, step, strata=31))


def test_one_node_draws_the_masks_of_all() -> None:
    model = onnx.parser.parse_model(CHAIN)
    made = lowered(model)
    assert [node.op_type for node in made.graph.node].count(MASKS_OP) == 1
    session, x = native_session(made), np.random.default_rng(0).standard_normal((3, 6, 5)).astype(np.float32)
    for step in ([5], [7, 2**40, 0]):
        results = session.run(None, {"x": x, "training_mode": ON, "step": np.array(step)})
        for got, expected in zip(results, wanted(x, np.array(step)), strict=True):
            (assert_same_bits if got.dtype == np.float32 else np.testing.assert_array_equal)(got, expected)
    y, mask = session.run(None, {"x": x})
    assert_same_bits(y, -x)
    assert mask.all()
    assert mask.shape == (3, 6, 1)


def test_negative_steps_count_as_the_nodes_themselves_do() -> None:
    model = onnx.parser.parse_model(CHAIN)
    sessions = native_session(lowered(model)), native_session(model)
    x = np.ones((2, 6, 5), np.float32)
    for step in (-1, -1, -3):
        one, other = (
            session.run(None, {"x": x, "training_mode": ON, "step": np.array([step])}) for session in sessions
        )
        assert_same_bits(one[0], other[0])


@pytest.mark.parametrize("rng", spec.RNGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_dialect_and_type(rng: str, dtype: str) -> None:
    model = dropout_model(rng=rng, dtype=dtype, ratio=0.4)
    x = np.random.default_rng(0).standard_normal((3, 4, 2, 2)).astype(dtype)
    y, mask = native_session(lowered(model)).run(None, {"x": x, "training_mode": ON, "step": np.array([9])})
    scale = sd.find(model)[0].scale
    expected = spatial_dropout(x, (2, 3), sd.find(model)[0].ratio, 7, 9, True, scale, rng=rng)
    assert_same_bits(y, expected[0])
    np.testing.assert_array_equal(mask, expected[1])


@pytest.mark.parametrize("step", [[1, 2], [1, -2, 3, 4, 5], []])
def test_a_step_that_the_definition_refuses(step: list[int]) -> None:
    session = native_session(lowered(dropout_model()))
    with pytest.raises(Exception, match="SpatialDropoutMasks: step"):
        session.run(
            None, {"x": np.ones((5, 4, 2, 2), np.float32), "training_mode": ON, "step": np.array(step, np.int64)}
        )


def test_masks_in_the_middle_of_the_graph_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    text = (
        CHAIN.replace("a = Neg (h)", "a = Compress <axis = 2> (h, keep)")
        .replace("int64[steps] step)", "int64[steps] step, bool[K] keep)")
        .replace("float[N,6,H] a>", "float[N,6,Z] a>")
        .replace("float[N,6,H] y", "float[N,6,Z] y")
    )
    text = text.replace("<axes = [2], ratio", "<axes: ints = [], ratio").replace("bool[N,6,1] m2", "bool[N,6,Z] m2")
    for source, expected in ((CHAIN, 0), (text, 1)):
        model = onnx.parser.parse_model(source)
        with caplog.at_level(logging.WARNING, "onnx_spatialdrop"):
            io.rewrite(
                model, None, lambda working: (LowerPass(kernel="native")(working), runtime._warn(working, ["X"]))
            )
        assert len(caplog.records) == expected
    assert "drawn on the CPU in the middle of the graph, where X stops and starts again" in caplog.text


def test_false_gives_the_plain_model(tmp_path: Path) -> None:
    onnx.save(dropout_model(), tmp_path / "m.onnx")
    for model in (dropout_model(), tmp_path / "m.onnx"):
        session = sd.session(model, training_mode=False)
        assert [given.name for given in session.get_inputs()] == ["x"]
        assert session.get_overridable_initializers() == []
        x = np.ones((1, 4, 2, 2), np.float32)
        assert_same_bits(session.run(["y"], {"x": x})[0], x)


def test_a_path_is_read_by_onnxruntime_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(dropout_model(), tmp_path / "m.onnx")
    monkeypatch.setattr(io, "rewrite", None)
    session = sd.session(tmp_path / "m.onnx", "native")
    assert session.run(["y"], {"x": np.ones((1, 4, 2, 2), np.float32), "training_mode": ON})[0].shape == (1, 4, 2, 2)


@pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-openvino (pip install onnxruntime-openvino, in an environment of its own)",
)
def test_openvino_keeps_everything_but_the_masks(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    providers = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    session = sd.session(onnx.parser.parse_model(CHAIN), sess_options=options, providers=providers)
    x = np.random.default_rng(0).standard_normal((3, 6, 5)).astype(np.float32)
    y, mask = session.run(None, {"x": x, "training_mode": ON, "step": np.array([5])})
    expected = wanted(x, [5])
    np.testing.assert_allclose(y, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(mask, expected[1])
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"] for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    on_cpu = collections.Counter(each["op_name"] for each in ran if each["provider"] == "CPUExecutionProvider")
    assert on_cpu == {MASKS_OP: 1}
