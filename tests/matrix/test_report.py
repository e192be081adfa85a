"""docs/compatibility.md says what cells.py expects of the versions that were measured, and covers all tools."""

import json

from matrix import report
from matrix.cells import LEVELS, OPTIMIZERS, RUNTIMES, WARNED, Cell


def test_the_document_is_in_step_with_the_expectations() -> None:
    measured = json.loads(report.MEASURED.read_text())
    assert report.render(report.expectations(measured)) == report.DOCUMENT.read_text()
    assert set(measured) == {*RUNTIMES, *OPTIMIZERS}
    old = {"1.20.1", "1.23.2"}
    assert all(old < set(measured[f"onnxruntime {level}"]) for level in LEVELS if level != "layout")


def test_what_differs_between_models_is_named() -> None:
    outcomes = {
        ("0.23.9", Cell("tract", "default", "uniform", model)): "drawn"
        for model in ("digits_torch", "digits_keras", "digits_external")
    }
    outcomes["0.23.9", Cell("tract", "default", "uniform", "digits_if")] = WARNED
    outcomes["0.23.9", Cell("tract", "default", "uniform", "digits_float16")] = WARNED
    assert "| tract 0.23.9 |  |  |  | drawn; digits_float16, digits_if: warned |" in report.render(outcomes)
