"""Names of open dimensions, for torch 2.6 too: given names, its exporter falls back to a trace with fixed sizes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

__all__ = ["named"]

#: Where torch 2.7 and newer turn names into dimensions by themselves.
_BY_TORCH: Final = "torch.onnx._internal.exporter._dynamic_shapes"


def named(shapes: Any) -> Any:
    """Return ``dynamic_shapes`` as this torch takes them: with a torch.export.Dim for each name, where it has to be."""
    return shapes if find_spec(_BY_TORCH) is not None else with_dims(shapes, {})


def with_dims(shapes: Any, dims: dict[str, Any]) -> Any:
    """Return nested lists, tuples and dicts with a torch.export.Dim for each string; ``dims`` keeps them by name."""
    if isinstance(shapes, str):
        if shapes not in dims:
            import torch

            dims[shapes] = torch.export.Dim(shapes)
        return dims[shapes]
    if isinstance(shapes, dict):
        return {key: with_dims(each, dims) for key, each in shapes.items()}
    if isinstance(shapes, (list, tuple)):
        return type(shapes)(with_dims(each, dims) for each in shapes)
    return shapes
