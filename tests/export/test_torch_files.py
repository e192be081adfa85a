"""Files that benchmarks/exporters_torch.py recorded: they must give torch's outputs where torch is not installed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_spatialdrop as sd
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.passes.seeds import derive_seeds

DATA = Path(__file__).parents[1] / "data" / "torch"
FILES = {"enet": (6, (2, 3)), "erfnet": (4, (2, 3)), "tcn": (6, (2,)), "3-d_u-net": (4, (2, 3, 4))}

# Float32 sums of some hundred terms of order one.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}

KERNELS = [
    pytest.param("native", marks=pytest.mark.skipif(
        native.missing_reason() is not None, reason="the native library is not built here"
    )),
    "python",
    "body",
]  # fmt: skip


def test_the_versions_that_wrote_them_are_known() -> None:
    versions = json.loads((DATA / "versions.json").read_text())
    assert versions["torch"] == "2.13.0"
    assert {file.stem for file in DATA.glob("*.onnx")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_layer_is_there_and_named(name: str) -> None:
    count, axes = FILES[name]
    found = sd.find(DATA / f"{name}.onnx")
    assert [each.axes for each in found] == [axes] * count
    assert [each.seed for each in found] == derive_seeds(0, count)
    model = sd.load(DATA / f"{name}.onnx")
    named = [(node.name, node.metadata_props) for node in model.graph if node.op_type == "SpatialDropout"]
    assert all(key == f"{props['onnx_spatialdrop.layer']}/SpatialDropout" for key, props in named)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_outputs_are_torchs_in_inference_and_with_the_same_masks(name: str, kernel: Any) -> None:
    session, arrays = sd.session(DATA / f"{name}.onnx", kernel), dict(np.load(DATA / f"{name}.npz"))
    np.testing.assert_allclose(session.run(None, {"x": arrays["x"]})[0], arrays["inference"], **TOLERANCE)
    for step in (0, 5):
        feeds = {"x": arrays["x"], "training_mode": np.array(True), "step": np.array([step])}
        np.testing.assert_allclose(session.run(None, feeds)[0], arrays[f"step {step}"], **TOLERANCE)
        assert np.abs(arrays[f"step {step}"] - arrays["inference"]).max() > 0.01


@pytest.mark.parametrize("name", FILES)
def test_round_trips_through_every_form_keep_the_inference_output(name: str) -> None:
    arrays, file = dict(np.load(DATA / f"{name}.npz")), DATA / f"{name}.onnx"
    model = sd.load(file)
    forms = {
        "removed": sd.remove(model),
        "attached": sd.attach(model),
        "detached": sd.detach(sd.attach(model)),
        "philox": sd.expand(model, form="philox"),
        "philox-int32": sd.expand(model, form="philox-int32"),
        "uniform": sd.expand(model, form="uniform"),
        "dropout": sd.expand(model, form="dropout"),
    }
    for form, each in forms.items():
        got = sd.session(each).run(None, {"x": arrays["x"]})[0]
        np.testing.assert_allclose(got, arrays["inference"], err_msg=form, **TOLERANCE)
    feeds = {"x": arrays["x"], "training_mode": np.array(True), "step": np.array([5])}
    for form in ("attached", "detached", "philox", "philox-int32"):
        got = sd.session(forms[form]).run(None, feeds)[0]
        np.testing.assert_allclose(got, arrays["step 5"], err_msg=form, **TOLERANCE)
    axes = [each.axes for each in sd.find(model)]
    for form in ("philox", "uniform", "dropout"):
        assert [each.axes for each in sd.find(sd.fuse(forms[form]))] == axes, form
