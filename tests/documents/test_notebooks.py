"""The notebooks run: here without the cells that need a framework, and hold the outputs of a run with all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents.pages import DOCS, ROOT
from matrix import javascript

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
CDN = "https://cdn.jsdelivr.net/npm/onnxruntime-web/dist/"


def cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def run(notebook: Path) -> dict[str, Any]:
    """Run what needs no framework, and return the names that are there afterwards."""
    names: dict[str, Any] = {"__name__": notebook.stem}
    for cell in cells(notebook):
        needed = set(cell["metadata"].get("needs", ())) & {"torch", "keras", "tf2onnx", "matplotlib"}
        source = cell["metadata"].get("instead", "") if needed else "".join(cell["source"])
        exec(compile(source, f"{notebook.name}, {cell['id']}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_map_of_a_segmentation_network() -> None:
    names = run(DOCS / "notebooks" / "torch_uncertainty.ipynb")
    assert names["outputs"]["entropy"].shape == (4, 40, 40)


def test_the_page_of_a_text_network() -> None:
    names = run(DOCS / "notebooks" / "keras_browser.ipynb")
    assert {path.name for path in names["site"].iterdir()} == {"index.html", "sentiment.onnx"}
    if javascript.missing("onnxruntime-web"):
        return
    page = names["site"] / "index.html"
    text = page.read_text()
    assert text.count(CDN) == text.count("</script>") == 1
    post = 'await fetch("out", { method: "POST", body: JSON.stringify(document.getElementById("out").textContent) });'
    page.write_text(text.replace(CDN, "./ort/").replace("</script>", f"{post}</script>"))
    (names["site"] / "ort").symlink_to(javascript.modules() / "node_modules/onnxruntime-web/dist")
    shown = [float(each) for each in re.findall(r"\d\.\d+", javascript.visited(names["site"], "index.html"))]
    np.testing.assert_allclose(shown, [names["mean"][0, 1], names["entropy"][0]], atol=0.006)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_the_outputs_of_one_run(notebook: Path) -> None:
    code = cells(notebook)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    told = json.dumps([cell["outputs"] for cell in code])
    assert '"error"' not in told
    assert all(cell["outputs"] for cell in code if "print(" in "".join(cell["source"]))


def test_every_cell_says_what_it_needs() -> None:
    imported = re.compile(r"(?m)^(?:import|from) (torch|keras|tf2onnx|matplotlib|onnx_spatialdrop\.export)\b")
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            for package in imported.findall("".join(cell["source"])):
                assert cell["metadata"].get("needs"), f"{notebook.name}, {cell['id']}: {package}"
