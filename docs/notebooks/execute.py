"""Execute the notebooks and keep what they print and draw: ``python docs/notebooks/execute.py [NAME ...]``.

It needs nbclient and ipykernel, and what each notebook names in its first cell. A cell's metadata says in ``needs``
which packages it needs; tests/documents/test_notebooks.py runs the others, and ``instead`` in the place of those.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(file: Path) -> None:
    """Run a notebook from its first cell to its last and write it with its outputs."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the time of day
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, file)


if __name__ == "__main__":
    for name in sys.argv[1:] or [file.stem for file in sorted(FOLDER.glob("*.ipynb"))]:
        execute(FOLDER / f"{name}.ipynb")
