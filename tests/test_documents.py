"""What the documents promise: the README's code runs, and every file that they name exists."""

import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readmes_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["samples"]) == 30
    assert {path.name for path in tmp_path.glob("*.onnx")} == {
        "clean.onnx",
        "inference.onnx",
        "train.onnx",
        "portable.onnx",
        "mc.onnx",
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    missing = [link for link in links if not (document.parent / link).exists()]
    places = [ROOT, ROOT / "onnx_spatialdrop"]
    paths = re.findall(
        r"`((?:tests|docs|models|benchmarks|ops|passes|operator|runtime|kernels|cli|export)/[\w./]*)`", text
    )
    missing += [path for path in paths if not any(os.path.exists(place / path) for place in places)]
    assert not missing
