"""The code of the documentation runs: Python and commands, page by page, in order, in a folder with the models."""

from __future__ import annotations

import glob
import shlex
import warnings
from pathlib import Path

import pytest
from documents.pages import PAGES, ROOT, Block, blocks, name, needs

from onnx_spatialdrop.cli import main

#: Verbs that have tests of their own and take long.
ELSEWHERE = {"demo", "doctor"}
#: What a command may end with: done, or findings.
FINE = {0, 3}


def commands(code: str) -> list[list[str]]:
    """Return the commands of ours in a block of shell."""
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    return [line[1:] for line in lines if line[:1] == ["onnx-spatialdrop"] and line[1] not in ELSEWHERE]


def running(page: Path) -> list[Block]:
    """Return the blocks of a page that run here."""
    return [each for each in blocks(page) if each.runs and (each.language == "python" or commands_of(each))]


def commands_of(block: Block) -> list[list[str]]:
    return commands(block.code) if block.language == "sh" else []


@pytest.mark.parametrize("page", [page for page in [ROOT / "README.md", *PAGES] if running(page)], ids=name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if needs(page):
        warnings.simplefilter("ignore")  # of the frameworks, about one another; pytest puts the filters back
    for package in needs(page):
        pytest.importorskip(package)
    (tmp_path / "models").mkdir()
    for file in (ROOT / "models").glob("*.[on]*"):
        (tmp_path / "models" / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in running(page):
        if block.language == "python":
            exec(compile(block.code, str(page), "exec"), names)
        for words in commands_of(block):
            given = [found for word in words for found in (sorted(glob.glob(word)) or [word])]
            assert main(given) in FINE, words
