"""The marker in a graph that torch traces: an operator that nothing decomposes, merges or folds. Imports torch.

One operator for modules of torch's and of Keras's on torch, and for both of torch's exporters; see export/markers.py
for what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import onnx
import torch

from onnx_spatialdrop.export.markers import CALL, MARKER
from onnx_spatialdrop.export.torch.hooks import has_torchscript_exporter
from onnx_spatialdrop.operator import spec

__all__ = ["OPERATOR", "OPSETS", "mark", "symbolics", "translation_table", "writing"]

_LIBRARY: Final = torch.library.Library(spec.DOMAIN, "FRAGMENT")
_LIBRARY.define("marker(Tensor x, int call) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
_LIBRARY.impl("marker", lambda x, _: x.clone(), "CompositeExplicitAutograd")
torch.library.register_fake(f"{spec.DOMAIN}::marker", lambda x, _: torch.empty_like(x), lib=_LIBRARY)

#: The operator as torch.export has it: (x, number of the call) -> a copy of x.
OPERATOR: Final = torch.ops.onnx_spatialdrop.marker.default
#: Those of the TorchScript exporter; it prefers its own translation for a newer opset to one registered for an older.
OPSETS: Final = range(9, 24)


def mark(x: Any, call: int) -> Any:
    """Return a copy of ``x`` that exporters write as a Marker node."""
    return OPERATOR(x, call)


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return torch.onnx's translation of the marker, for the exporter that is built on torch.export."""
    from onnxscript import values

    schema_of = onnx.defs.OpSchema
    types = ["tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)"]
    schema = schema_of(
        MARKER,
        spec.DOMAIN,
        spec.VERSION,
        type_constraints=[("T", types, "")],
        inputs=[schema_of.FormalParameter("X", "T")],
        outputs=[schema_of.FormalParameter("Y", "T")],
        attributes=[schema_of.Attribute(CALL, schema_of.AttrType.INT)],
    )
    node = values.Op(values.Opset(spec.DOMAIN, spec.VERSION), MARKER, schema)
    return {OPERATOR: lambda x, call: node(x, **{CALL: call})}


@contextmanager
def symbolics() -> Iterator[None]:
    """Register the marker's translation for the TorchScript exporter, inside the context.

    A torch whose TorchScript exporter is gone is left alone: its newer one does not need it.
    """
    name = f"{spec.DOMAIN}::marker"

    def symbolic(graph: Any, x: Any, call: int) -> Any:
        return graph.op(f"{spec.DOMAIN}::{MARKER}", x, **{f"{CALL}_i": call}).setType(x.type())

    registered = OPSETS if has_torchscript_exporter(torch) else ()
    try:
        for opset in registered:
            torch.onnx.register_custom_op_symbolic(
                name, torch.onnx.symbolic_helper.parse_args("v", "i")(symbolic), opset
            )
        yield
    finally:
        for opset in registered:
            torch.onnx.unregister_custom_op_symbolic(name, opset)


@contextmanager
def writing() -> Iterator[None]:
    """Let ``torch.onnx.export`` write markers as nodes, inside the context, by either exporter."""
    original = torch.onnx.export

    def export(*arguments: Any, **keywords: Any) -> Any:
        table = {**translation_table(), **(keywords.pop("custom_translation_table", None) or {})}
        return original(*arguments, custom_translation_table=table, **keywords)

    torch.onnx.export = export
    try:
        with symbolics():
            yield
    finally:
        torch.onnx.export = original
