"""Every cell of the matrix that can be run here comes out as cells.py says.

The plain environment runs a few cells of ONNX Runtime and of onnx's ReferenceEvaluator. With ONNX_SPATIALDROP_MATRIX=1,
as .ci/matrix has it, all that is installed is run, but optimisers only on models that differ in kind; with =all on all.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from matrix.cases import RECORDS
from matrix.cells import KINDS, OPTIMIZERS, RUNTIMES, Cell, expected, of_optimizers, of_runtimes
from matrix.outcomes import in_javascript, missing, outcome

IN_JAVASCRIPT = ("onnxruntime-node", "onnxruntime-web")
WANTED = os.environ.get("ONNX_SPATIALDROP_MATRIX", "")
#: What the plain environment runs.
QUICK_TOOLS = ("onnxruntime all", "reference")
QUICK_MODELS = ("digits_torch", "digits_if", "digits_function")
SWITCHED_OFF = "runs with ONNX_SPATIALDROP_MATRIX=1, as in .ci/matrix"


def _cells() -> list[Cell]:
    if not WANTED:
        return [cell for cell in of_runtimes(*QUICK_TOOLS) if cell.model in QUICK_MODELS]
    runtimes = of_runtimes(*(name for name in RUNTIMES if name not in IN_JAVASCRIPT))
    return [*runtimes, *of_optimizers(*OPTIMIZERS, models=RECORDS if WANTED == "all" else KINDS)]


@pytest.mark.parametrize("tool", [*RUNTIMES, *OPTIMIZERS])
def test_a_tool_is_here_or_it_is_said_why_not(tool: str) -> None:
    """One line for each tool that is left out, instead of one for each of its cells."""
    reason = missing(tool)
    if reason:
        pytest.skip(f"{tool}: {reason}")
    if not WANTED and tool not in QUICK_TOOLS:
        pytest.skip(f"{tool}: {SWITCHED_OFF}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@pytest.mark.filterwarnings("ignore")  # the tools', not ours
@pytest.mark.parametrize("cell", [cell for cell in _cells() if not missing(cell.tool)], ids="-".join)
def test_a_cell(cell: Cell, folder: Path) -> None:
    assert outcome(cell, folder) == expected(cell)


@pytest.mark.parametrize("tool", [tool for tool in IN_JAVASCRIPT if WANTED and not missing(tool)])
def test_the_cells_of_javascript(tool: str, folder: Path) -> None:
    cells = list(of_runtimes(tool))
    found = in_javascript(cells, folder)
    assert {cell: found[cell] for cell in cells} == {cell: expected(cell) for cell in cells}
