"""Spatial dropout for ONNX: an operator with defined bits, kernels for ONNX Runtime, and graph rewrites.

Importing this package loads no framework and no runtime. It makes the operator known to onnx's checker and shape
inference in this process. All other names load what they need when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from onnx_spatialdrop.errors import FormError, KernelError, ModelFileError, SpatialDropError, SpecError
from onnx_spatialdrop.operator.schema import register_schema

if TYPE_CHECKING:
    from onnx_spatialdrop.io import load, save
    from onnx_spatialdrop.kernels.native import get_library_path
    from onnx_spatialdrop.montecarlo import MCDropout, monte_carlo, split
    from onnx_spatialdrop.operator import reference
    from onnx_spatialdrop.operator.node import spatial_dropout
    from onnx_spatialdrop.passes.attach import attach, detach
    from onnx_spatialdrop.passes.check.check import check
    from onnx_spatialdrop.passes.expand import expand
    from onnx_spatialdrop.passes.find import find
    from onnx_spatialdrop.passes.fix import fix
    from onnx_spatialdrop.passes.fuse import explain, fuse
    from onnx_spatialdrop.passes.insert import insert
    from onnx_spatialdrop.passes.remove import remove
    from onnx_spatialdrop.passes.seeds import assign_seeds
    from onnx_spatialdrop.passes.stratify import stratify
    from onnx_spatialdrop.passes.to_inference import to_inference
    from onnx_spatialdrop.runtime.doctor import doctor
    from onnx_spatialdrop.runtime.session import register, session
    from onnx_spatialdrop.serving.triton import triton

__all__ = [
    "FormError",
    "KernelError",
    "MCDropout",
    "ModelFileError",
    "SpatialDropError",
    "SpecError",
    "assign_seeds",
    "attach",
    "check",
    "detach",
    "doctor",
    "expand",
    "explain",
    "find",
    "fix",
    "fuse",
    "get_library_path",
    "insert",
    "load",
    "monte_carlo",
    "reference",
    "register",
    "register_schema",
    "remove",
    "save",
    "session",
    "spatial_dropout",
    "split",
    "stratify",
    "to_inference",
    "triton",
]

#: Where each of the names lives that load when they are used.
_HOMES: Final = {
    "MCDropout": "montecarlo",
    "assign_seeds": "passes.seeds",
    "attach": "passes.attach",
    "check": "passes.check",
    "detach": "passes.attach",
    "doctor": "runtime.doctor",
    "expand": "passes.expand",
    "explain": "passes.fuse",
    "find": "passes.find",
    "fix": "passes.fix",
    "fuse": "passes.fuse",
    "get_library_path": "kernels.native",
    "insert": "passes.insert",
    "load": "io",
    "monte_carlo": "montecarlo",
    "reference": "operator",
    "register": "runtime.session",
    "remove": "passes.remove",
    "save": "io",
    "session": "runtime.session",
    "spatial_dropout": "operator.node",
    "split": "montecarlo",
    "stratify": "passes.stratify",
    "to_inference": "passes.to_inference",
    "triton": "serving.triton",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES[name]}")
    found = import_module(f"{home.__name__}.{name}") if name == "reference" else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_schema()
