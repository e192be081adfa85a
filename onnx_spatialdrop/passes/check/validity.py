"""Rules of check about operators and attributes that ONNX does not have at a file's opset, by onnx's own schemas."""

from __future__ import annotations

from functools import cache

import onnx.defs
import onnx_ir as ir

from onnx_spatialdrop.passes.check.rules import Rule, Where

__all__ = ["VALIDITY"]


@cache
def _attributes(op_type: str, opset: int) -> frozenset[str] | None:
    """Return the attributes that an operator of ONNX has at ``opset``; None where there is no such operator then."""
    if not onnx.defs.has(op_type, opset, ""):
        return None
    found = onnx.defs.get_schema(op_type, opset, "")
    return None if found.deprecated else frozenset(found.attributes)


def _is_judged(node: ir.Node, where: Where) -> bool:
    newest = where.opset > onnx.defs.onnx_opset_version()  # what a newer onnx has, nobody knows here
    return node.domain == "" and not newest and node.op_identifier() not in where.model.functions


def _stateless(node: ir.Node, _: Where) -> str:
    if not node.op_type.startswith("StatelessRandom"):
        return ""
    return f"{node.op_type} is no ONNX operator, and its key and counter are constants: no runtime can load the file"


def _unknown_op(node: ir.Node, where: Where) -> str:
    if not _is_judged(node, where) or _attributes(node.op_type, where.opset) is not None or _stateless(node, where):
        return ""
    return f"ONNX has no operator {node.op_type} at opset {where.opset}: runtimes refuse the file"


def _unknown_attribute(node: ir.Node, where: Where) -> str:
    known = _attributes(node.op_type, where.opset) if node.attributes and _is_judged(node, where) else None
    unknown = [] if known is None else [name for name in node.attributes if name not in known and name[:2] != "__"]
    if not unknown:
        return ""
    named = f"attribute{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}"
    return f"{node.op_type} has no {named} at opset {where.opset}: runtimes refuse the file"


VALIDITY = (
    Rule("invalid-op", "fuse(model)", _stateless),
    Rule(
        "invalid-op",
        "export with a converter that knows it, or bring its domain and function into the file",
        _unknown_op,
    ),
    Rule(
        "invalid-op",
        "write the node as that opset has it (Dropout's ratio is an input from opset 12 on); to_inference(model) takes "
        "Dropout out",
        _unknown_attribute,
    ),
)
