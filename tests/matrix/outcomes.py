"""Find out what happens in a cell: build the file, ask check, run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matrix import javascript, optimizers, runtimes
from matrix.cases import Case, build
from matrix.cells import FOR_OPENVINO, OPTIMIZERS, REFUSED, RUNTIMES, WARNED, Cell, expected
from matrix.verdict import BITS, DRAWN, FED, OFF, judge, plan

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.passes.check import check
from onnx_spatialdrop.passes.check.targets import rules_for

__all__ = ["in_javascript", "missing", "outcome"]

#: OpenVINO's 64-bit integers are 32 bits wide.
LARGE = {"openvino": 2**31 - 2}
#: Where no shape may depend on what an input holds, all samples share a step.
SINGLE = ("tract",)


def missing(tool: str) -> str:
    """Return why a runtime or an optimiser cannot run here, or ""."""
    if tool.startswith("onnxruntime-"):
        return javascript.missing(tool)
    return runtimes.missing(tool) if tool in RUNTIMES else optimizers.missing(tool)


def outcome(cell: Cell, folder: Path) -> str:
    """Return what happens in a cell of a runtime or optimiser that Python can call.

    Files are written into ``folder`` once and serve all cells that want the same.
    """
    case = _build(cell, folder)
    return REFUSED if case is None else _settle(cell, case, _run(cell, case))


def in_javascript(wanted: Iterable[Cell], folder: Path) -> dict[Cell, str]:
    """Return what happens in cells of onnxruntime-node or of onnxruntime-web, all in one process."""
    built = {cell: _build(cell, folder) for cell in wanted}
    jobs = {"/".join(cell): (case, plan(case)) for cell, case in built.items() if case is not None}
    (tool,) = {cell.tool for cell in built}
    results = (javascript.run_in_node if tool == "onnxruntime-node" else javascript.run_in_chromium)(jobs)
    found = dict[Cell, str]()
    for cell, case in built.items():
        if case is None:
            found[cell] = REFUSED
            continue
        result = results["/".join(cell)]
        happened = f"fails: {result[:300]}" if isinstance(result, str) else judge(case, result, switched=True)
        found[cell] = _settle(cell, case, happened)
    return found


def _build(cell: Cell, folder: Path) -> Case | None:
    """Return the cell's case; None where expand refuses it."""
    form = "philox-int32" if cell.form == FOR_OPENVINO else cell.form
    return _built(cell.model, form, folder, cell.target, cell.tool in RUNTIMES, cell.switches)


@cache
def _built(model: str, form: str, folder: Path, target: str, masks: bool, switches: str) -> Case | None:
    place = folder / f"{target}-{switches}-{'masks' if masks else 'plain'}"
    place.mkdir(exist_ok=True)
    try:
        return build(model, form, place, target, masks=masks, switches=switches)
    except FormError:
        return None


@cache
def _warnings(path: Path, target: str) -> frozenset[str]:
    """Return the rules by which check warns of ``target``; one that it asks for all targets is about tract, too."""
    own = {rule.name for rule in rules_for(target)} | {"frozen-switch"}
    if target == "tract":
        own.add("random-in-if")
    return frozenset(finding.rule for finding in check(path, target=target)) & own


def _settle(cell: Cell, case: Case, happened: str) -> str:
    """Return the outcome, which is "warned" only where check warns and it does go wrong."""
    warnings = _warnings(case.path, {**RUNTIMES, **OPTIMIZERS}[cell.tool])
    lost_bits = happened == DRAWN and expected(cell) == WARNED
    if lost_bits or happened not in (BITS, DRAWN, FED, OFF):
        return WARNED if warnings else happened
    if happened == BITS:
        warnings -= {"open-steps"}  # whether onnxslim folds the question depends on what else it knows of shapes
    if cell.tool != "onnxruntime offline all":
        warnings -= {"if-offline"}  # it cannot know at which level somebody will save
    return f"{happened}, but check warns: {', '.join(sorted(warnings))}" if warnings else happened


def _run(cell: Cell, case: Case) -> str:
    large = LARGE.get(cell.target, 2**40 + 3) if cell.tool in RUNTIMES else 2**40 + 3
    single = cell.tool in SINGLE
    runner = runtimes.RUNNERS.get(cell.tool, runtimes.RUNNERS["onnxruntime all"])
    try:
        if cell.tool in OPTIMIZERS:
            optimized = case.path.with_name(f"{cell.tool.replace(' ', '-')}.{case.path.name}")
            optimizers.optimize(cell.tool, case.path, optimized)
            case = dataclasses.replace(case, path=optimized)
        runs = runner(case, plan(case, large, single))
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is an outcome
        return f"fails: {type(error).__name__}: {str(error).strip()[:300]}"
    return judge(case, runs, switched=cell.switches != "fixed", large=large, single=single)
