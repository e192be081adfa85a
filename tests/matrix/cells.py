"""What is expected where: the one place that describes the matrix. docs/compatibility.md is generated from it.

A cell is one committed model in one form, run by one runtime, or passed through one optimiser and run by ONNX Runtime.
The outcomes are those of verdict.py, "refused" (by expand), and "warned": check names a reason, and it does go wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from matrix.cases import DIALECTS, EVAL_EXPORTS, RECORDS
from matrix.verdict import BITS, DRAWN, FED, OFF

from onnx_spatialdrop.passes.expand.targets import NO_FUNCTIONS

__all__ = ["FORMS", "KINDS", "LEVELS", "OPTIMIZERS", "RUNTIMES", "Cell", "expected", "of_optimizers", "of_runtimes"]

REFUSED, WARNED = "refused", "warned"
FORMS = ("body", "philox", "philox-int32", "uniform", "dropout", "mask-inputs", "identity")
#: expand(form="philox-int32", target="openvino") for ONNX Runtime: its fresh draws come from RandomUniformLike.
FOR_OPENVINO = "philox-int32, openvino"
GOOD = {
    "body": BITS,
    "philox": BITS,
    "philox-int32": BITS,
    FOR_OPENVINO: BITS,
    "uniform": DRAWN,
    "dropout": DRAWN,
    "mask-inputs": FED,
    "identity": OFF,
}
#: ONNX Runtime's optimisation levels; "layout" is missing from old versions.
LEVELS = ("disable", "basic", "extended", "layout", "all")
#: Runtime -> the target of expand and of check.
RUNTIMES = {
    **{f"onnxruntime {level}": "onnxruntime" for level in LEVELS},
    "onnxruntime-node": "onnxruntime-node",
    "onnxruntime-web": "onnxruntime-web",
    "reference": "reference",
    "openvino": "openvino",
    "tract": "tract",
}
#: Optimiser -> the target of check.
OPTIMIZERS = {
    "onnxslim": "onnxslim",
    "onnxsim": "onnxsim",
    "onnxscript": "onnxscript",
    "onnxoptimizer": "onnxoptimizer",
    "onnx-ir": "onnx-ir",
    **{f"onnxruntime offline {level}": "onnxruntime-offline" for level in ("basic", "extended", "all")},
}
#: What optimisers are given: models that differ in kind. The others differ in layout, type or where their weights lie.
KINDS = ("digits_torch", "digits_keras_1d", "digits_if", "digits_function")
SWITCHES = ("default", "fed", "fixed")


class Cell(NamedTuple):
    """One square of the matrix; ``switches`` is that of cases.build, and ``tool`` a runtime or an optimiser."""

    tool: str
    switches: str
    form: str
    model: str

    @property
    def target(self) -> str:
        """Return what expand writes for."""
        if self.form == FOR_OPENVINO:
            return "openvino"
        return RUNTIMES.get(self.tool, "onnxruntime")


def of_runtimes(*names: str) -> Iterator[Cell]:
    """Return the cells of runtimes; their switches have defaults wherever the runtime can feed such an input."""
    for name in names:
        switches = "fed" if RUNTIMES[name] in ("onnxruntime-node", "onnxruntime-web") else "default"
        for model in RECORDS:
            for form in FORMS if model not in EVAL_EXPORTS else ("identity",):
                yield Cell(name, switches, form, model)


def of_optimizers(*names: str, models: Iterable[str] = KINDS) -> Iterator[Cell]:
    """Return the cells of optimisers, for switches of all three kinds."""
    for name in names:
        for model in models:
            if model in EVAL_EXPORTS:
                yield Cell(name, "default", "identity", model)
                continue
            for switches in SWITCHES:
                for form in FORMS:
                    if form != "identity" or switches == "default":
                        yield Cell(name, switches, form, model)
                if switches != "default":
                    yield Cell(name, switches, FOR_OPENVINO, model)


def expected(cell: Cell) -> str:
    """Return the outcome that is expected of a cell."""
    if cell.form == "mask-inputs" and cell.model == "digits_function" and cell.target not in NO_FUNCTIONS:
        return REFUSED  # calls of a function would share one mask
    if cell.tool in RUNTIMES:
        problem = _runtime_problem(RUNTIMES[cell.tool], cell.form, cell.model)
    else:
        problem = WARNED if _is_broken(cell) else ""
    if problem:
        return problem
    return DRAWN if cell.switches == "fixed" and GOOD[cell.form] == BITS else GOOD[cell.form]


def _runtime_problem(target: str, form: str, model: str) -> str:
    if target == "reference":  # starts from the seed in every run
        return WARNED if form in ("uniform", "dropout") else ""
    if target == "openvino":
        return {"body": WARNED, "philox": REFUSED, "dropout": REFUSED}.get(form, "")
    if target == "tract":
        if form in ("philox", "dropout"):
            return REFUSED
        if form == "body":
            return WARNED
        if form == "philox-int32" and model in DIALECTS:
            return REFUSED
        if model == "digits_float16":  # no Gemm in float16
            return WARNED
        # Inside If it draws once for ever.
        return WARNED if model == "digits_if" and form == "uniform" else ""
    return ""


def _is_broken(cell: Cell) -> bool:
    if cell.form == "identity":
        return (cell.tool, cell.model) == ("onnxruntime offline all", "digits_if")
    if cell.tool == "onnxslim":
        # With an open number of steps it may take one step for several; in three models it does not come to that.
        spared = cell.form in ("philox", "philox-int32") and cell.model in (
            "digits_torch",
            "digits_keras_1d",
            "digits_if",
        )
        known = (cell.form == FOR_OPENVINO and cell.switches == "fixed") or (spared and cell.switches == "fed")
        return cell.switches == "default" or (cell.form not in ("uniform", "mask-inputs") and not known)
    if cell.tool == "onnxsim":
        return cell.switches == "default"
    if cell.tool == "onnxscript":
        # It cannot fold the body's strings, and folds Ifs and Dropouts whose switch has a default.
        folded = cell.switches == "default" and cell.form in ("dropout", "philox", "philox-int32")
        return cell.form == "body" or folded
    if cell.model == "digits_if" and cell.tool.startswith("onnxruntime offline"):
        return cell.tool == "onnxruntime offline all" or cell.form == "body"
    return False
