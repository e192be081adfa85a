"""What of torch the export takes hold of, looked for before anything is done. torch is given, not imported.

All of it is in torch 2.6; a later one may move it.
"""

from __future__ import annotations

import inspect
from functools import reduce
from importlib.util import find_spec
from typing import Any, Final

from onnx_spatialdrop.errors import SpatialDropError

__all__ = ["advised", "check", "has_torchscript_exporter"]

_NEEDED: Final = (
    "_VF",
    "backends.mha.set_fastpath_enabled",
    "compiler.is_compiling",
    "compiler.set_stance",
    "export.ExportedProgram.run_decompositions",
    "feature_alpha_dropout",
    "feature_dropout",
    "jit.is_tracing",
    "library.Library",
    "library.register_fake",
    "onnx.export",
    "ops.aten.feature_dropout.default",
    "random.fork_rng",
)
_TORCHSCRIPT: Final = (
    "onnx.register_custom_op_symbolic",
    "onnx.symbolic_helper.parse_args",
    "onnx.unregister_custom_op_symbolic",
)


def check(torch: Any) -> None:
    """Check that every place is there where dropout is kept.

    Raises:
        SpatialDropError: one is not; it names it and the versions to use.
    """
    missing = [f"torch.{path}" for path in _NEEDED if not _has(torch, path)]
    if not missing and not {"custom_translation_table", "**"} & set(_parameters(torch.onnx.export)):
        missing = ["torch.onnx.export(custom_translation_table=...)"]
    if missing:
        raise SpatialDropError(
            f"torch {torch.__version__} has no {missing[0]}, which spatial dropout needs to get through an export; "
            "use torch 2.6 or newer, best 2.13.0, with which this is tested"
        )


def has_torchscript_exporter(torch: Any) -> bool:
    """Return whether symbolics can be registered for ``torch.onnx.export(dynamo=False)``."""
    return all(_has(torch, path) for path in _TORCHSCRIPT)


def advised(torch: Any, onnxscript: Any, error: Exception) -> Exception:
    """Return the error of an export that failed where operators are translated, or one that says what to do about it.

    torch 2.6 has its translations from onnxscript and reads their results as they were in onnxscript 0.2: with 0.3.2 to
    0.5.6 it exported nothing, with 0.5.7 to 0.7.2 no batch norm. Later ones have a module of translations of their own.
    """
    try:
        own = find_spec("torch.onnx._internal.exporter._torchlib.ops.core")
    except ModuleNotFoundError:  # not the layout of any torch that was looked at
        return error
    if own or isinstance(error, SpatialDropError) or not onnxscript.ir.Model.__module__.startswith("onnx_ir"):
        return error
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return SpatialDropError(
        f"torch {torch.__version__} could not export the module with the translations of onnxscript "
        f'{onnxscript.__version__}; use onnxscript 0.2 (pip install "onnxscript<0.3") or torch 2.7 and newer; '
        f"torch says: {type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
    )


def _has(torch: Any, path: str) -> bool:
    try:
        reduce(getattr, path.split("."), torch)
    except AttributeError:
        return False
    return True


def _parameters(function: Any) -> list[str]:
    found = inspect.signature(function).parameters.values()
    return ["**" if each.kind == each.VAR_KEYWORD else each.name for each in found]
