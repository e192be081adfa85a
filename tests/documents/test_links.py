"""Every file that the documents name exists."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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
