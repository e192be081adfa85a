"""Importing the package is light, and the test of it can fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_spatialdrop as sd

HEAVY = ("onnx_ir", "onnxruntime", "onnxruntime_extensions", "torch", "keras", "tensorflow", "jax", "rich")


def loaded(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after ``code``."""
    probe = f"{code}; import sys; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("heavy", HEAVY)
def test_importing_loads_no_framework_and_no_runtime(heavy: str) -> None:
    assert heavy not in loaded("import onnx_spatialdrop")


def test_the_probe_sees_what_is_loaded() -> None:
    assert "onnxruntime" in loaded("import onnx_spatialdrop, onnxruntime")


def test_a_name_loads_what_it_needs() -> None:
    assert "onnx_ir" in loaded("from onnx_spatialdrop import find")


def test_names_that_load_when_they_are_used_are_those_that_are_declared() -> None:
    source = ast.parse(Path(sd.__file__).read_text())
    (declared,) = (node for node in source.body if isinstance(node, ast.If))
    names = {alias.name for node in declared.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(sd._HOMES)
    assert names <= set(sd.__all__) <= set(dir(sd))
    with pytest.raises(AttributeError, match="module 'onnx_spatialdrop' has no attribute 'nothing'"):
        sd.nothing  # noqa: B018


def test_the_process_ends_well_although_onnx_knows_the_operator() -> None:
    probe = "import onnx_spatialdrop, onnx; print(onnx.defs.has('SpatialDropout', 1, 'onnx_spatialdrop'))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_all_public_names_exist_and_have_docstrings() -> None:
    for name in sd.__all__:
        assert getattr(sd, name).__doc__, name
    assert {
        "load", "save", "find", "remove", "attach", "detach", "assign_seeds", "session", "register", "doctor",
    } <= set(sd.__all__)  # fmt: skip
