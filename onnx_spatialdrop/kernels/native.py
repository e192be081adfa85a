"""The native kernel: where its library is, and how sessions get it. It never imports onnxruntime by itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from onnx_spatialdrop.errors import KernelError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["get_library_path", "missing_reason", "register"]

_FOLDER: Final = Path(__file__).parent
_NAMES: Final = ("libonnx_spatialdrop.so", "libonnx_spatialdrop.dylib", "onnx_spatialdrop.dll")


def get_library_path() -> Path:
    """Return the path of the custom-op library.

    Raises:
        KernelError: it was not built when this package was installed.
    """
    for name in _NAMES:
        if (_FOLDER / name).is_file():
            return _FOLDER / name
    raise KernelError(
        f"the native library is not in {_FOLDER}: the package was installed without a C++ compiler; "
        "install one and reinstall, or use kernel='python' or kernel='body'"
    )


def missing_reason() -> str | None:
    """Return why the native kernel cannot be used here, or None."""
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install onnxruntime)"
    try:
        get_library_path()
    except KernelError as error:
        return str(error)
    return None


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Register the library with ``session_options``.

    Raises:
        KernelError: the library is not there.
    """
    reason = missing_reason()
    if reason is not None:
        raise KernelError(f"the native kernel cannot be used: {reason}")
    session_options.register_custom_ops_library(str(get_library_path()))
