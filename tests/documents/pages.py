"""The pages of the documentation, and the code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_FENCE = re.compile(r"^```(\w+)( no-run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; ``runs`` is false where the page says ``no-run`` behind its language."""

    language: str
    code: str
    runs: bool


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the blocks of a page in order, of one language or of all."""
    found = [Block(name, code, not no_run) for name, no_run, code in _FENCE.findall(page.read_text())]
    return [block for block in found if language in (None, block.language)]


def needs(page: Path) -> list[str]:
    """Return the packages that a page's code needs beside this one: its first line names them."""
    match = re.match(r"<!-- needs: (.*) -->\n", page.read_text())
    return match[1].split() if match else []


def name(page: Path) -> str:
    """Return what a page is called in a test's name."""
    return str(page.relative_to(ROOT))
