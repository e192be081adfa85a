"""The site: every page is in its navigation, what is generated is current, and what people look for is found."""

from __future__ import annotations

import re
import runpy

import pytest
from documents.pages import DOCS, PAGES, ROOT

import onnx_spatialdrop as sd

CONFIGURATION = (ROOT / "mkdocs.yml").read_text()
HEADINGS = {
    (str(page.relative_to(DOCS)), heading.lower())
    for page in PAGES
    for heading in re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text()))
}


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"([\w/.-]+\.md)$", CONFIGURATION, re.MULTILINE))
    notebooks = [page.with_suffix(".md") for page in (DOCS / "notebooks").glob("*.ipynb")]
    there = {str(page.relative_to(DOCS)) for page in [*PAGES, *notebooks]}
    assert {name for name in listed if not name.startswith("repository/")} == there


def test_the_command_lines_reference_is_what_the_parser_says() -> None:
    content = runpy.run_path(str(DOCS / "commands.py"))["content"]()
    assert (DOCS / "commands.md").read_text() == content, "run python docs/commands.py"


def test_every_public_name_is_in_the_reference() -> None:
    reference = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"(?m)^::: onnx_spatialdrop\.(?:\w+\.)*(\w+)$", reference))
    errors = {name for name in sd.__all__ if name.endswith("Error")}  # one page shows their module
    assert set(sd.__all__) - errors - {"reference"} <= shown


@pytest.mark.parametrize(
    "words",
    [
        "monte carlo dropout exported onnx model",
        "monte carlo dropout faster",
        "serve model dropout c++ c# java",
        "remove dropout nodes onnx model",
        "set seed same dropout again",
        "export nn.dropout2d spatialdropout2d onnx",
        "randomuniformlike bernoulli not implemented random operator does not run",
        "train fine-tune onnx model dropout",
        "dropout attention scaled_dot_product_attention multiheadattention",
        "quantize model dropout int8",
        "stochastic depth droppath",
        "ordinary dropout nn.dropout",
    ],
)
def test_a_heading_has_the_words_that_people_search_for(words: str) -> None:
    assert any(all(word in heading for word in words.split()) for _, heading in HEADINGS)
