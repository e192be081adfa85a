"""Let the TorchScript exporter write markers for dropouts, through symbolics that are registered meanwhile.

Imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.markers import CALL, MARKER
from onnx_spatialdrop.export.torch.capture import Capture, shared_axes
from onnx_spatialdrop.export.torch.functions import KINDS
from onnx_spatialdrop.export.torch.hooks import has_torchscript_exporter
from onnx_spatialdrop.export.torch.marker import OPSETS, symbolics
from onnx_spatialdrop.operator import spec

__all__ = ["capturing", "layer_of", "scope"]

#: The scope that a dropout's call is traced in: this, and the name of the module that calls, "." for "/".
_SCOPE: Final = f"{spec.DOMAIN}::"


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Register symbolics for torch's dropouts, inside the context; those that are to be kept stay torch's own.

    A torch whose TorchScript exporter is gone is left alone: its newer one does not need them.
    """
    registered = []
    try:
        with symbolics():
            for name, kind in KINDS.items() if has_torchscript_exporter(torch) else ():
                if capture.fate(kind, 0.5) != "keep":
                    for aten, opset in ((f"aten::{name}{end}", opset) for end in ("", "_") for opset in OPSETS):
                        torch.onnx.register_custom_op_symbolic(aten, _symbolic(kind, capture), opset)
                        registered.append((aten, opset))
            yield
    finally:
        for aten, opset in registered:
            torch.onnx.unregister_custom_op_symbolic(aten, opset)


@contextmanager
def scope(layer: str) -> Iterator[None]:
    """Let what is traced inside the context tell the layer's name: torch's own scopes only tell the last part of it."""
    state = torch._C._get_tracing_state()
    state.push_scope(f"{_SCOPE}{layer}")
    try:
        yield
    finally:
        state.pop_scope()


def layer_of(path: str, modules: Collection[str]) -> str:
    """Return the qualified name of the module in whose scope a node was traced.

    A dropout that was traced as a call of Python's tells it. One inside of a scripted module has torch's scopes, in
    which a module is shown by the last part of its name that is no number: each is taken for the nearest module of such
    a name inside the one before it.

    Args:
        path: scopes from the outermost one on, "class::name" each, with "/" between.
        modules: the qualified names that there are.
    """
    before, told, layer = path.rpartition(_SCOPE)
    if told:
        return layer
    layer = ""
    for part in before.split("/") if before else path.split("/"):
        shown = part.rpartition("::")[2]
        if not shown:
            continue
        inside = [name for name in modules if name.startswith(f"{layer}." if layer else "")]
        once = re.sub(r"_\d+$", "", shown)  # a module's second call is shown as drop_1
        matching = (name for last in (shown, once) for name in sorted(inside, key=_depth) if _last(name) == last)
        layer = next(matching, f"{layer}.{shown}" if layer else shown)
    return layer


def _depth(name: str) -> tuple[int, str]:
    return name.count("."), name


def _last(name: str) -> str:
    """Return ``name`` from its last part that is no number on, as TorchScript's scopes show a module."""
    parts = name.split(".")
    start = max((index for index, part in enumerate(parts) if not part.isnumeric()), default=0)
    return ".".join(parts[start:])


def _symbolic(kind: str, capture: Capture) -> Callable[..., Any]:
    """Return the translation of a dropout of this kind; its own ``train`` says nothing, since the switch decides."""

    def symbolic(g: Any, x: Any, ratio: float, _train: Any) -> Any:
        if capture.fate(kind, ratio) == "off":
            return x
        rank, dtype = x.type().dim(), x.type().dtype()
        if rank is None or dtype is None:
            raise SpatialDropError(
                f"a {kind} dropout of a scripted module reads {x.debugName()!r}, whose rank is unknown; "
                "export the module that was scripted, or give example inputs from which the rank follows"
            )
        layer = layer_of(g.original_node.scopeName(), capture.modules)
        number = capture.note(layer, kind, ratio, rank, dtype, shared_axes(kind, rank))
        return g.op(f"{spec.DOMAIN}::{MARKER}", x, **{f"{CALL}_i": number}).setType(x.type())

    parsed: Callable[..., Any] = torch.onnx.symbolic_helper.parse_args("v", "f", "none")(symbolic)
    return parsed
