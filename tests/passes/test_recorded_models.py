"""Every file under tests/data and models/: rewrites there and back, in memory and from file to file."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
from random_models.oracles import problems_of_file

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("tests/data/**/*.onnx"), *ROOT.glob("models/*.onnx")])


def failures(files: list[Path]) -> dict[str, list[str]]:
    """Return what does not hold of the files."""
    found = {}
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = list(problems_of_file(onnx.load(file)))
        if wrong:
            found[str(file.relative_to(ROOT))] = wrong
    return found


def test_there_are_files() -> None:
    assert len(FILES) > 300


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_rewrites_of_some_recorded_models(start: int) -> None:
    assert failures(FILES[start::40]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("start", range(40))
def test_rewrites_of_all_recorded_models(start: int) -> None:
    assert failures(FILES[start::40]) == {}
