"""The model of torch's ONNXProgram, whichever classes it is made of: onnxscript before 0.3 had its own."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

__all__ = ["read", "write"]


def read(program: Any) -> ir.Model:
    """Return the program's model: the very one, or a copy where it is not made of onnx_ir's classes."""
    return program.model if isinstance(program.model, ir.Model) else ir.from_proto(program.model_proto)


def write(program: Any, model: ir.Model) -> None:
    """Make ``model`` the program's; it may be the one that read() returned."""
    if isinstance(program.model, ir.Model):
        program.model = model
    else:
        from onnxscript.ir import serde

        program.model = serde.deserialize_model(ir.to_proto(model))
