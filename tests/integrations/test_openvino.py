"""OpenVINO reads nodes as they stand in a file, with the operator's bits, and writes and quantises what it has read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zoo
from building import assert_same_bits, dropout_model

from onnx_spatialdrop.integrations.openvino import extension
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.attach import attach
from onnx_spatialdrop.runtime.session import session

openvino = pytest.importorskip("openvino", reason="openvino is not installed (pip install openvino)")
pytestmark = pytest.mark.openvino

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def read(model: onnx.ModelProto) -> Any:
    core = openvino.Core()
    core.add_extension(extension())
    return core.read_model(model.SerializeToString())


def ready(model: Any) -> Any:
    return openvino.Core().compile_model(model, "CPU", EXACT)


def run(compiled: Any, **feeds: Any) -> list[np.ndarray]:
    names = {name for port in compiled.inputs for name in port.names}
    return [value.copy() for value in compiled({k: np.array(v) for k, v in feeds.items() if k in names}).values()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"opset": 15},
        {"wrap": True, "opset": 23},
        {"axes": (), "seed": -(2**63), "shape": (5, 4, 3, 2)},
        {"axes": (0, -1), "ratio": 0.6},
        {"rng": "keras_jax", "scale": 1.5},
        {"rng": "keras_tf", "seed": 2**40},
        {"strata": 31},
        {"training_mode": True},
    ],
)
def test_bits(options: dict[str, Any]) -> None:
    model, x = (
        ready(read(attach(dropout_model(**options), defaults=False))),
        np.random.default_rng(0).standard_normal((5, 4, 3, 2)).astype("f"),
    )
    given = {"axes": (2, 3), "ratio": 0.3, "seed": 7, "rng": "philox", "strata": 1} | options
    scale = options.get("scale", spec.explicit_scale(given["ratio"]))
    held = {name: given[name] for name in ("axes", "ratio", "seed", "rng", "strata")}
    for step in ([3], [2**31 - 1], [1, 2, 3, 4, 5])[: 2 if 0 in given["axes"] else 3]:
        y, mask = run(model, x=x, training_mode=True, step=step)
        source = np.abs(x) if options.get("wrap") else x
        wanted = spatial_dropout(source, step=step, scale=scale, **held)
        assert_same_bits(y + np.float32(0), (-wanted[0] if options.get("wrap") else wanted[0]) + np.float32(0))
        np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("name", ["digits_if", "digits_keras"])
def test_networks_draw_as_onnx_runtime_draws_before_and_after_they_are_saved(name: str, tmp_path: Path) -> None:
    source = attach(onnx.load(zoo.path(name)), defaults=False)
    model, saved = read(source), tmp_path / "saved.xml"
    openvino.save_model(model, saved, compress_to_fp16=False)
    compiled, onnxruntime = (ready(model), ready(saved)), session(source)  # the file is read without the extension
    feeds = zoo.feeds(name, zoo.record(name).images[:4])
    for step in ([3], [4, 3, 2, 1]):
        switches = {"training_mode": np.array(True), "step": np.array(step)}
        wanted = onnxruntime.run(None, feeds | switches)[0]
        for each in compiled:
            np.testing.assert_allclose(run(each, **feeds, **switches)[0], wanted, atol=2e-5)
    fresh = [run(compiled[1], **feeds, training_mode=True, step=[-1])[0].tobytes() for _ in range(3)]
    assert len(set(fresh)) == 3


def test_conversion_takes_the_extension_too(tmp_path: Path) -> None:
    file, x = tmp_path / "model.onnx", np.ones((5, 4, 3, 2), np.float32)
    onnx.save(attach(dropout_model(), defaults=False), file)
    model = openvino.convert_model(file, extension=[extension()])
    wanted = spatial_dropout(x, (2, 3), 0.3, 7, 5, scale=spec.explicit_scale(0.3))
    assert_same_bits(run(ready(model), x=x, training_mode=True, step=[5])[0], wanted[0])


def test_a_switch_with_a_default_is_off_for_good_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "onnx_spatialdrop"):
        model = read(dropout_model())
    assert "attach(model, defaults=False)" in caplog.text
    x = np.ones((5, 4, 3, 2), np.float32)
    y, mask = run(ready(model), x=x, training_mode=True, step=[5])
    np.testing.assert_array_equal(y, x)
    assert mask.all()


def test_an_impossible_node_is_refused() -> None:
    broken = attach(dropout_model(), defaults=False)
    broken.graph.node[0].attribute[1].f = 1.5
    with pytest.raises(RuntimeError, match=r"ratio is 1\.5; it must lie in \[0, 1\]"):
        read(broken)
    with pytest.raises(RuntimeError, match="philox-int32"):
        run(
            ready(read(attach(dropout_model(), defaults=False))),
            x=np.ones((5, 4, 2, 2), "f"),
            training_mode=True,
            step=[1, 2],
        )


def test_nncf_leaves_the_draws_alike_if_products_are_left_out() -> None:
    nncf = pytest.importorskip("nncf", reason="NNCF is not installed (pip install nncf)")
    model, images = read(attach(onnx.load(zoo.path("digits_torch")), defaults=False)), zoo.record("digits_torch").images
    data = [
        {"image": images[4 * n : 4 * n + 4], "training_mode": np.array(True), "step": np.array([n])} for n in range(32)
    ]

    def draws(made: Any) -> np.ndarray:
        compiled = ready(made)
        return np.stack(
            [run(compiled, image=images[200:208], training_mode=True, step=[step])[0] for step in range(40)]
        )

    wanted = draws(model)
    scope = nncf.IgnoredScope(types=["Multiply"])
    made = draws(nncf.quantize(model.clone(), nncf.Dataset(data), ignored_scope=scope))
    assert 0.95 < made.std(0).mean() / wanted.std(0).mean() < 1.05
    assert np.corrcoef((made - made.mean(0)).ravel(), (wanted - wanted.mean(0)).ravel())[0, 1] > 0.98
