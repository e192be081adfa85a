"""The page in examples/browser, in a headless Chromium, and its module in Node.js: the numbers of Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from matrix import javascript
from matrix.cases import Case

import onnx_spatialdrop as sd

PAGE = Path(__file__).parents[2] / "examples" / "browser"
IMAGE = np.load(zoo.FOLDER / "canvas.npz")["images"][:1].astype(np.float32) / 255

needs_web = pytest.mark.skipif(bool(javascript.missing("onnxruntime-web")), reason="see .ci/matrix")
needs_node = pytest.mark.skipif(bool(javascript.missing("onnxruntime-node")), reason="see .ci/matrix")


@pytest.fixture(scope="module")
def wanted() -> dict[str, np.ndarray]:
    session = sd.session(sd.monte_carlo(zoo.path("canvas"), task="segmentation"))
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, {"image": IMAGE}), strict=True))


def assert_same(made: dict[str, Any], wanted: dict[str, np.ndarray]) -> None:
    assert set(made) == set(wanted)
    for name, tensor in made.items():
        given = np.array(tensor["data"]).reshape([int(size) for size in tensor["dims"]])
        np.testing.assert_allclose(given, wanted[name], atol=1e-5, err_msg=name)


@needs_web
def test_the_page_shows_what_python_computes(wanted: dict[str, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(PAGE, tmp_path / "site", ignore=shutil.ignore_patterns("node_modules", "*.onnx"))
    (tmp_path / "site" / "node_modules").symlink_to(javascript.modules() / "node_modules")
    model = tmp_path / "site" / "canvas_mc.onnx"
    sd.monte_carlo(zoo.path("canvas"), model, task="segmentation", target="onnxruntime-web")
    (tmp_path / "site" / "image.json").write_text(json.dumps(IMAGE.ravel().tolist()))
    told = javascript.visited(tmp_path / "site", "index.html?report=image.json")
    assert_same(told["plain"], wanted)
    assert told["told"].startswith("31 draws in ")
    grey = np.array(told["painted"]["entropy"]).reshape(40, 40, 4)[..., 0]
    np.testing.assert_allclose(grey, 255 * wanted["entropy"][0] / np.log(11), atol=0.6)
    grey = np.array(told["painted"]["prediction"]).reshape(40, 40, 4)[..., 0]
    np.testing.assert_allclose(grey, 25.5 * wanted["mean"][0].argmax(0), atol=0.6)


@needs_web
def test_the_browser_draws_the_masks_of_the_definition(tmp_path: Path) -> None:
    model = sd.load(zoo.path("canvas"))
    exposed = zoo.expose(model)
    file = sd.expand(model, tmp_path / "canvas.onnx", target="onnxruntime-web")
    feeds = [{"image": IMAGE, "training_mode": np.array(True), "step": np.array([step])} for step in (0, 7, 2**40)]
    (runs,) = javascript.run_in_chromium({"canvas": (Case(file, IMAGE, IMAGE, {}, "logits", ()), feeds)}).values()
    session = sd.session(model)
    assert not isinstance(runs, str), runs
    for feed, made in zip(feeds, runs, strict=True):
        masks = [each.mask for each in exposed]
        for name, mask in zip(masks, session.run(masks, feed), strict=True):
            np.testing.assert_array_equal(made[name], mask)
            assert not mask.all()


@needs_node
def test_the_module_in_node(wanted: dict[str, np.ndarray], tmp_path: Path) -> None:
    sd.monte_carlo(zoo.path("canvas"), tmp_path / "model.onnx", task="segmentation", target="onnxruntime-node")
    (tmp_path / "image.json").write_text(json.dumps(IMAGE.ravel().tolist()))
    code = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ createRequire }} from "node:module";
        import {{ uncertainty }} from {json.dumps((PAGE / "uncertainty.mjs").as_uri())};
        const ort = createRequire({json.dumps(str(javascript.modules() / "here.js"))})("onnxruntime-node");
        const session = await ort.InferenceSession.create("model.onnx", {{ intraOpNumThreads: 1 }});
        const data = Float32Array.from(JSON.parse(readFileSync("image.json", "utf8")));
        const made = await uncertainty(ort, session, {{ data, dims: [1, 1, 40, 40] }});
        const plain = ([name, {{ data, dims }}]) => [name, {{ data: [...data], dims }}];
        console.log(JSON.stringify(Object.fromEntries(Object.entries(made).map(plain))));
    """
    (tmp_path / "run.mjs").write_text(code)
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert_same(json.loads(done.stdout.splitlines()[-1]), wanted)
