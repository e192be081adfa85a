"""The arguments of a call of ``torch.onnx.export``, read as torch reads them. torch is given, not imported."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["by_dynamo", "inputs", "is_module"]


def by_dynamo(torch: Any, model: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether the exporter that is built on torch.export is called; torch 2.9 made it the default."""
    if isinstance(model, torch.export.ExportedProgram):
        return True
    default = inspect.signature(torch.onnx.export).parameters.get("dynamo")
    return bool(arguments.get("dynamo", default is None or default.default is True))


def is_module(torch: Any, model: Any) -> bool:
    """Return whether ``model`` is a module that Python runs, whose parts can be looked at and run one by one."""
    return isinstance(model, torch.nn.Module) and not isinstance(model, torch.jit.ScriptModule)


def inputs(torch: Any, args: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the named arguments of the module; a dict that comes last holds named ones."""
    positional = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    if kwargs is None and positional and isinstance(positional[-1], dict):
        return positional[:-1], dict(positional[-1])
    return positional, dict(kwargs or {})
