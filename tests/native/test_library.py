"""Finding the library, and what is said where there is none."""

import sys
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

import onnx_spatialdrop.kernels
from onnx_spatialdrop.errors import KernelError
from onnx_spatialdrop.kernels import native


def test_the_library_is_found() -> None:
    assert native.missing_reason() is None
    assert native.get_library_path().is_file()


def test_what_is_said_without_a_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_spatialdrop.kernels, "__path__", [str(tmp_path)])
    reason = native.missing_reason()
    assert reason is not None
    assert f"is not in {tmp_path}: the package was installed without a C++ compiler" in reason
    assert "\n" not in reason
    for function in (native.get_library_path, lambda: native.register(onnxruntime.SessionOptions())):
        with pytest.raises(KernelError, match="the native kernel cannot be used: libonnx_spatialdrop"):
            function()


def test_what_is_said_with_an_old_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__="1.17.3"))
    expected = "it needs onnxruntime 1.18 or newer and this is 1.17.3; run 'pip install -U onnxruntime'"
    assert native.missing_reason() == expected
    with pytest.raises(KernelError, match="needs onnxruntime 1.18"):
        native.get_library_path()


def test_a_file_that_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / native.get_library_path().name).write_bytes(b"not a library")
    monkeypatch.setattr(onnx_spatialdrop.kernels, "__path__", [str(tmp_path)])
    with pytest.raises(KernelError, match="the native kernel cannot be used: ONNX Runtime did not load"):
        native.register(onnxruntime.SessionOptions())
