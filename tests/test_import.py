"""Importing the package is light, and the test of it can fail."""

import subprocess
import sys

import pytest

HEAVY = ("onnxruntime", "onnxruntime_extensions", "torch", "keras", "tensorflow", "jax", "rich")


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


def test_all_public_names_exist_and_have_docstrings() -> None:
    import onnx_spatialdrop as sd

    for name in sd.__all__:
        assert getattr(sd, name).__doc__, name
    assert {
        "load", "save", "find", "remove", "attach", "detach", "assign_seeds", "session", "register", "doctor",
    } <= set(sd.__all__)  # fmt: skip
