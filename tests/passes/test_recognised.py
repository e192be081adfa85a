"""docs/recognised.md says what fuse does today."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_is_up_to_date() -> None:
    content = runpy.run_path(str(DOCS / "recognised.py"))["content"]()
    assert (DOCS / "recognised.md").read_text() == content, "run python docs/recognised.py"
