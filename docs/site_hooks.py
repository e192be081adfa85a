"""What mkdocs needs beside mkdocs.yml: the repository's files that pages link to become part of the site."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Where files that are not in docs/ are on the site.
OUTSIDE = "repository"
#: Files of the navigation, and where else to look for links.
PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "models/README.md"]
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s#]+)")


def _source(uri: str) -> Path:
    return ROOT / uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else DOCS / uri


def _outside(text: str, source: Path) -> set[str]:
    """Return what a page links to in the repository, but outside of docs/."""
    found = {(source.parent / link).resolve() for _, link in LINK.findall(text)}
    return {str(path.relative_to(ROOT)) for path in found if path.is_file() and not _served(path)}


def _served(path: Path) -> bool:
    return path.is_relative_to(DOCS) and path.suffix != ".py"


def _as_page(notebook: Path) -> str:
    """Return a notebook as Markdown: its text, its code, and what the code printed and drew."""
    parts: list[str] = []
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![](data:image/png;base64,{''.join(data['image/png']).replace(chr(10), '')})")
            elif said := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{said}\n```")
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks as pages, and the repository's files that pages link to."""
    for notebook in sorted(DOCS.glob("notebooks/*.ipynb")):
        name = notebook.relative_to(DOCS).with_suffix(".md").as_posix()
        files.append(File.generated(config, name, content=_as_page(notebook)))
    pages = [*DOCS.rglob("*.md"), *(ROOT / name for name in PAGES)]
    wanted = {*PAGES, *(name for page in pages for name in _outside(page.read_text(), page))}
    for name in sorted(wanted):
        files.append(File.generated(config, f"{OUTSIDE}/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - what mkdocs calls it with
    """Let links lead to where the site has what they mean, and fences be such as every Markdown knows."""
    source = _source(page.file.src_uri)  # of a notebook's page, a file that is not there beside it
    here = os.path.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        path = (source.parent / match[2]).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return match[0]  # mkdocs will say so
        if path.suffix == ".ipynb":
            path = path.with_suffix(".md")
        uri = path.relative_to(DOCS) if _served(path) else Path(OUTSIDE) / path.relative_to(ROOT)
        return match[1] + Path(os.path.relpath(uri, here or ".")).as_posix()

    text = re.sub(r"(?m)^(```\w+) no-run$", r"\1", markdown)
    return LINK.sub(link, text)
