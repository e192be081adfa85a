"""Let the TorchScript exporter write placeholders for dropouts, through symbolics that are registered meanwhile.

Imports torch, as capture.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.torch.capture import KINDS, Capture, description
from onnx_spatialdrop.export.torch.hooks import has_torchscript_exporter
from onnx_spatialdrop.export.torch.placeholders import DOMAIN, OP_TYPE

__all__ = ["capturing"]

#: Those of the exporter; it prefers its own translation for a newer opset to a registered one for an older opset.
_OPSETS: Final = range(9, 24)


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Register symbolics for torch's dropouts, inside the context; those that are to be kept stay torch's own.

    A torch whose TorchScript exporter is gone is left alone: its newer one does not need them.
    """
    registered = []
    try:
        for name, kind in KINDS.items() if has_torchscript_exporter(torch) else ():
            if capture.fate(kind, 0.5) != "keep":
                for aten, opset in ((f"aten::{name}{end}", opset) for end in ("", "_") for opset in _OPSETS):
                    torch.onnx.register_custom_op_symbolic(aten, _symbolic(kind, capture), opset)
                    registered.append((aten, opset))
        yield
    finally:
        for aten, opset in registered:
            torch.onnx.unregister_custom_op_symbolic(aten, opset)


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
        _, first, rank, ratio, scale = description(kind, rank, dtype, ratio)
        attributes = {"first_i": first, "rank_i": rank, "ratio_f": ratio, "scale_f": scale}
        y = g.op(f"{DOMAIN}::{OP_TYPE}", x, kind_s=kind, call_i=next(capture.calls), **attributes)
        return y.setType(x.type())

    parsed: Callable[..., Any] = torch.onnx.symbolic_helper.parse_args("v", "f", "none")(symbolic)
    return parsed
