"""The code of the documentation in C, JavaScript and HTML: it compiles, runs, and gives what Python gives."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import zoo
from documents.pages import DOCS, blocks
from matrix import javascript

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference

HOW = DOCS / "how"
COMPILER = shutil.which("cc") or shutil.which("gcc")
RUNTIME = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
#: Where the page has its runtime from; the test has it from npm.
CDN = "https://cdn.jsdelivr.net/npm/onnxruntime-web/dist/"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")


def code(page: str, language: str) -> str:
    """Return the first block of a page in a language."""
    return blocks(HOW / page, language)[0].code


def compiled(page: str, folder: Path) -> str:
    (folder / "program.c").write_text(code(page, "c"))
    command = [COMPILER or "", *FLAGS, "-o", "program", "program.c", "-ldl", "-lm"]
    subprocess.run(command, check=True, cwd=folder)
    return str(folder / "program")


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def mask_of_40() -> str:
    kept = reference.dropout_mask((1, 40, 8, 8), [2, 3], 0.3, 7, 3)
    return "".join(str(int(each)) for each in kept.ravel())


@needs_compiler
def test_the_masks_in_c(tmp_path: Path) -> None:
    assert said(compiled("kernel.md", tmp_path)) == mask_of_40()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_masks_in_javascript(tmp_path: Path) -> None:
    (tmp_path / "mask.mjs").write_text(code("kernel.md", "js"))
    assert said("node", str(tmp_path / "mask.mjs")).strip() == mask_of_40()


@needs_compiler
@pytest.mark.skipif(not RUNTIME, reason="needs an onnxruntime with a library of its own")
def test_monte_carlo_dropout_in_c(tmp_path: Path) -> None:
    assert len(code("languages.md", "c").splitlines()) <= 45
    model = sd.monte_carlo(zoo.path("digits_torch"), tmp_path / "mc.onnx", target="onnxruntime")
    lines = said(compiled("languages.md", tmp_path), str(RUNTIME[0]), str(model)).splitlines()
    image = (np.arange(64) * 37 % 17 / 16).astype(np.float32).reshape(1, 1, 8, 8)
    feeds = {"image": image, "samples": np.array([31]), "step": np.array([0])}
    mean, entropy = sd.session(model).run(["mean", "entropy"], feeds)
    got = [float(line.split()[1]) for line in lines]
    np.testing.assert_allclose(got, [*mean[0], entropy[0]], atol=2e-6)


@pytest.mark.skipif(javascript.missing("onnxruntime-web") != "", reason=javascript.missing("onnxruntime-web"))
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    page = code("browser.md", "html")
    assert len(page.splitlines()) <= 15
    assert page.count(CDN) == page.count("</script>") == 1
    post = 'await fetch("out", { method: "POST", body: JSON.stringify(document.getElementById("out").textContent) });'
    (tmp_path / "index.html").write_text(page.replace(CDN, "./ort/").replace("</script>", f"{post}</script>"))
    (tmp_path / "ort").symlink_to(javascript.modules() / "node_modules/onnxruntime-web/dist")
    sd.monte_carlo(zoo.path("digits_torch"), tmp_path / "mc.onnx", target="onnxruntime-web")
    shown = javascript.visited(tmp_path, "index.html")
    found = re.fullmatch(r"probabilities: ([\d. ]+)\nentropy: ([\d.]+) nats", shown)
    assert found is not None, shown
    probabilities = np.array([float(each) for each in found[1].split()])
    assert probabilities.size == 10
    assert abs(probabilities.sum() - 1) < 0.01
    assert 0 < float(found[2]) < np.log(10)
