"""Finds the native kernel's library and registers it with ONNX Runtime.

It imports onnxruntime at no time and never falls back to another kernel: who asks for the native one gets it, or an
error that says why not.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx_spatialdrop.kernels
from onnx_spatialdrop.errors import KernelError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["MIN_ONNXRUNTIME", "get_library_path", "missing_reason", "register"]

#: The first version of ONNX Runtime whose C API has what the library calls.
MIN_ONNXRUNTIME: Final = (1, 18)

_LIBRARY: Final = "libonnx_spatialdrop" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
# Written into a SessionOptions so that a second registration can be told from a first: ONNX Runtime itself would
# refuse the session with "Domain already set in registry".
_MARK: Final = ("onnx_spatialdrop.native_kernel", "registered")
#: A severity of ONNX Runtime.
_ERRORS: Final = 3


def _folders() -> list[Path]:
    # An editable install has two: the sources, and the folder in site-packages with what CMake built.
    return [Path(folder) for folder in onnx_spatialdrop.kernels.__path__]


def _find() -> Path | None:
    return next((path for folder in _folders() if (path := folder / _LIBRARY).is_file()), None)


def _onnxruntime_version() -> str | None:
    """Return the version of the onnxruntime that is, or would be, imported."""
    loaded = sys.modules.get("onnxruntime")
    if loaded is not None:
        return str(loaded.__version__)
    if find_spec("onnxruntime") is None:
        return None
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:  # from onnxruntime-gpu or another of its many distributions
        names = metadata.packages_distributions().get("onnxruntime", [])
        return next((metadata.version(name) for name in names), "unknown")


def missing_reason() -> str | None:
    """Return None if the native kernel can be used here, else one line that says why it cannot and what to do."""
    if _find() is None:
        where = " or ".join(map(str, _folders()))
        return (
            f"{_LIBRARY} is not in {where}: the package was installed without a C++ compiler; install GCC or Clang and "
            "run 'pip install --force-reinstall --no-deps .' in its sources, or use kernel='python' or kernel='body'"
        )
    version = _onnxruntime_version()
    if version is None:
        return "onnxruntime is not installed; run 'pip install onnxruntime'"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers and numbers < MIN_ONNXRUNTIME:
        needed = ".".join(map(str, MIN_ONNXRUNTIME))
        return f"it needs onnxruntime {needed} or newer and this is {version}; run 'pip install -U onnxruntime'"
    return None


def get_library_path() -> Path:
    """Return the path of the library, for ``SessionOptions.register_custom_ops_library``.

    Raises:
        KernelError: the library was not built, or the installed ONNX Runtime is missing or too old for it.
    """
    path, reason = _find(), missing_reason()
    if path is None or reason is not None:
        raise KernelError(f"the native kernel cannot be used: {reason}")
    return path


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Make sessions created with ``session_options`` run SpatialDropout nodes with the native kernel.

    Registering the same options again changes nothing. Other libraries, such as onnxruntime-extensions', may be
    registered on them before or after. Where nobody has set how much they log, they log errors alone from now on:
    ONNX Runtime would warn of every switch that it is an input with a default.

    Args:
        session_options: changed in place.

    Raises:
        TypeError: they are no SessionOptions.
        KernelError: as ``get_library_path``; or ONNX Runtime refused to load the library.
    """
    if not hasattr(session_options, "register_custom_ops_library"):
        kind = "None" if session_options is None else type(session_options).__name__
        raise TypeError(f"session_options must be an onnxruntime.SessionOptions, not {kind}")
    path = get_library_path()
    key, value = _MARK
    try:
        if session_options.get_session_config_entry(key) == value:
            return
    except RuntimeError:
        pass  # ONNX Runtime's way of saying that there is no such entry
    try:
        session_options.register_custom_ops_library(str(path))
    except Exception as error:
        raise KernelError(f"the native kernel cannot be used: ONNX Runtime did not load {path}: {error}") from error
    session_options.add_session_config_entry(key, value)
    if session_options.log_severity_level == type(session_options)().log_severity_level:  # as it was made
        session_options.log_severity_level = _ERRORS
