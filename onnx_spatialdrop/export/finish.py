"""What all exporters do last: leave dropout in as the operator, take it out, or expand it for training."""

from __future__ import annotations

from typing import Any, Literal

import onnx_ir as ir

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.passes.remove import RemovePass

__all__ = ["DROPOUT", "Dropout", "finish", "require"]

Dropout = Literal["op", "inference", "training"]
DROPOUT: tuple[Dropout, ...] = ("op", "inference", "training")


def require(package: str, extra: str) -> Any:
    """Import and return a framework, or raise an error that says how to install it.

    Raises:
        SpatialDropError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise SpatialDropError(f'{package} is not installed: pip install "onnx_spatialdrop[{extra}]"') from error


def finish(
    model: ir.Model,
    dropout: Dropout = "op",
    target: str | None = None,
    *,
    mask_inputs: bool = False,
    body: bool = False,
) -> None:
    """Bring SpatialDropout nodes into the form that was asked for, in place.

    Args:
        model: an exported model that holds SpatialDropout nodes.
        dropout: "op" leaves the nodes; "inference" removes them; "training" expands them into standard ops.
        target: what a "training" model is for; see passes/expand.
        mask_inputs: make the masks inputs of the graph, in place of nodes that draw them; see passes/expand.
        body: put the operator's function body beside nodes that are left; see passes/attach.

    Raises:
        SpatialDropError: there is no such ``dropout``; it leaves no masks that could be inputs; or the model cannot be
            expanded for ``target``.
    """
    if dropout not in DROPOUT:
        raise SpatialDropError(f"dropout is {dropout!r}; allowed: {', '.join(map(repr, DROPOUT))}")
    if mask_inputs and dropout == "inference":
        raise SpatialDropError("dropout is 'inference', which leaves no masks to be inputs; use 'op' or 'training'")
    if dropout == "inference":
        RemovePass().call(model)
    elif dropout == "training" or mask_inputs:
        from onnx_spatialdrop.passes.expand import ExpandPass

        default = "training" if dropout == "training" else "onnxruntime"
        ExpandPass("mask-inputs" if mask_inputs else None, target or default).call(model)
    elif body:
        from onnx_spatialdrop.passes.attach import AttachPass

        AttachPass().call(model)
