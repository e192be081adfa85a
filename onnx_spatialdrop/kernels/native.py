"""Finds the native kernel and registers it with ONNX Runtime.

It never falls back to another kernel: who asks for the native one gets it, or an error that says why not.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx_spatialdrop.kernels
from onnx_spatialdrop.errors import KernelError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["get_library_path", "missing_reason", "register"]

#: The first version of ONNX Runtime whose C API has what the library calls.
MIN_ONNXRUNTIME: Final = (1, 18)

_SUFFIX: Final = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_LIBRARY: Final = f"libonnx_spatialdrop{_SUFFIX}"
#: Written into a SessionOptions so that a second registration can be told from a first.
_MARK: Final = ("onnx_spatialdrop.native_kernel", "registered")


def _find() -> Path | None:
    # An editable install has two folders: the sources, and site-packages with what CMake built.
    folders = (Path(folder) for folder in onnx_spatialdrop.kernels.__path__)
    return next((path for folder in folders if (path := folder / _LIBRARY).is_file()), None)


def _installed_onnxruntime() -> str | None:
    """Return the version of the onnxruntime that would be imported, without importing it if it is not loaded yet."""
    loaded = sys.modules.get("onnxruntime")
    if loaded is not None:
        return str(loaded.__version__)
    for name in importlib.metadata.packages_distributions().get("onnxruntime", ()):
        return importlib.metadata.version(name)
    return None


def missing_reason() -> str | None:
    """Return None if the native kernel can be used here, else one line that says why it cannot and what to do."""
    if _find() is None:
        return (
            f"native kernel: {_LIBRARY} is not in {', '.join(onnx_spatialdrop.kernels.__path__)}; this copy was "
            "installed without a C++ compiler: install GCC or Clang, then "
            "'pip install --force-reinstall --no-deps --no-binary onnx_spatialdrop onnx_spatialdrop'"
        )
    version = _installed_onnxruntime()
    if version is None:
        return "native kernel: onnxruntime is not installed; 'pip install onnxruntime'"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < MIN_ONNXRUNTIME:
        needed = ".".join(map(str, MIN_ONNXRUNTIME))
        return f"native kernel: needs onnxruntime {needed} or newer; this is {version}: 'pip install -U onnxruntime'"
    return None


def get_library_path() -> Path:
    """Return the path of the library, for ``SessionOptions.register_custom_ops_library``.

    Raises:
        KernelError: the library was not built, or the installed ONNX Runtime is too old for it.
    """
    path, reason = _find(), missing_reason()
    if path is None or reason is not None:
        raise KernelError(reason)
    return path


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Make sessions created with ``session_options`` run SpatialDropout nodes with the native kernel.

    Registering the same options again changes nothing. Other libraries, such as onnxruntime-extensions', may be
    registered on the same options before or after.

    Args:
        session_options: changed in place.

    Raises:
        KernelError: as ``get_library_path``, or ONNX Runtime refused to load the library.
    """
    key, value = _MARK
    try:
        if session_options.get_session_config_entry(key) == value:
            return
    except RuntimeError:
        pass  # no such entry: not registered yet
    path = get_library_path()
    try:
        session_options.register_custom_ops_library(str(path))
    except Exception as error:
        raise KernelError(f"native kernel: ONNX Runtime could not load {path}: {error}") from error
    session_options.add_session_config_entry(key, value)
