"""A way through each tool that takes a model and gives a model: nodes, or forms, whose switches have no defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import zoo
from building import dropout_model

import onnx_spatialdrop as sd

pytestmark = [pytest.mark.optimizers, pytest.mark.filterwarnings("ignore")]  # theirs, not ours


def offline(_: Any, model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    sd.register(options)
    ort.InferenceSession(model.SerializeToString(), options)
    return onnx.load(options.optimized_model_filepath)


#: What is installed -> the module, and its call.
TOOLS: dict[str, tuple[str, Callable[[Any, onnx.ModelProto, Path], onnx.ModelProto]]] = {
    "onnxslim": ("onnxslim", lambda module, model, _: module.slim(model)),
    "onnxsim": ("onnxsim", lambda module, model, _: module.simplify(model)[0]),
    "onnxruntime float16": (
        "onnxruntime.transformers.float16",
        lambda module, model, _: module.convert_float_to_float16(model, keep_io_types=True),
    ),
    "onnxconverter-common float16": (
        "onnxconverter_common.float16",
        lambda module, model, _: module.convert_float_to_float16(model, keep_io_types=True),
    ),
    "onnxruntime offline": ("onnxruntime", offline),
}


def through(tool: str, model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    name, call = TOOLS[tool]
    module = pytest.importorskip(name, reason=f"{tool.split()[0]} is not installed (pip install {tool.split()[0]})")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return call(module, copy, folder)


def unswitched(model: onnx.ModelProto) -> onnx.ModelProto:
    return sd.detach(sd.attach(model, defaults=False))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("axes", [(2, 3), ()])
def test_nodes_without_defaults_draw_as_before(tool: str, axes: tuple[int, ...], tmp_path: Path) -> None:
    model = unswitched(dropout_model(axes=axes, wrap=True, mask=False))
    if tool == "onnxslim" and not axes:
        with pytest.raises(ValueError, match="axes"):  # why docs/integrations.md names another way
            through(tool, model, tmp_path)
        return
    made, x = through(tool, model, tmp_path), np.random.default_rng(0).random((5, 4, 3, 2), dtype=np.float32)
    assert [node.op_type for node in made.graph.node].count("SpatialDropout") == 1
    near = 1e-3 if "float16" in tool else 0
    for step in ([3], [5, 4, 3, 2, 1]):
        feeds = {"x": x, "training_mode": np.array(True), "step": np.array(step)}
        before, after = (sd.session(each).run(None, feeds)[0] for each in (model, made))
        np.testing.assert_allclose(after, before, rtol=near, atol=near)
        np.testing.assert_array_equal(after == 0, before == 0)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_network_stays_the_network(tool: str, tmp_path: Path) -> None:
    model = unswitched(onnx.load(zoo.path("digits_torch")))
    made, feeds = through(tool, model, tmp_path), {"image": zoo.record("digits_torch").images[:8]}
    for on in (True, False):
        given = feeds | {"training_mode": np.array(on), "step": np.array([7])}
        before, after = (sd.session(each).run(None, given)[0] for each in (model, made))
        np.testing.assert_allclose(after, before, atol=0.05 if "float16" in tool else 1e-4)


def test_a_default_is_frozen_by_onnxslim_and_check_says_so(tmp_path: Path) -> None:
    model = dropout_model(wrap=True, mask=False)
    assert "frozen-switch" in [finding.rule for finding in sd.check(model, target="onnxslim")]
    made = through("onnxslim", model, tmp_path)
    assert [value.name for value in made.graph.input] == ["x"]


@pytest.mark.parametrize("form", ["philox", "uniform"])
def test_onnxconverter_common_breaks_expanded_files(form: str, tmp_path: Path) -> None:
    """Types inside If, and of Cast: so convert nodes, and expand what comes out."""
    model = dropout_model(wrap=True, mask=False)
    broken = through("onnxconverter-common float16", sd.expand(model, form=form), tmp_path)
    with pytest.raises(Exception, match="Type Error"):
        ort.InferenceSession(broken.SerializeToString())
    made = sd.expand(through("onnxconverter-common float16", unswitched(model), tmp_path), form=form)
    assert ort.InferenceSession(made.SerializeToString()).get_inputs()[0].type == "tensor(float)"


def test_onnxslim_takes_elementwise_dropout_as_uniform(tmp_path: Path) -> None:
    model = sd.expand(dropout_model(axes=(), wrap=True, mask=False), form="uniform", defaults=False)
    made = through("onnxslim", model, tmp_path)
    feeds = {"x": np.ones((50, 4, 3, 2), np.float32), "training_mode": np.array(True)}
    session = ort.InferenceSession(made.SerializeToString())
    assert len({session.run(None, feeds)[0].tobytes() for _ in range(3)}) == 3
