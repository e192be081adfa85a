"""Nodes that their operator does not allow, told from our own slips, which are no fault of a file. Reads one node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import onnx
import onnx_ir as ir

__all__ = ["MalformedNodeError", "reading"]

_Option: Final = onnx.defs.OpSchema.FormalParameterOption


class MalformedNodeError(Exception):
    """A node that its operator does not allow: missing inputs, attributes of another kind, numbers that do not fit."""


@contextmanager
def reading(node: ir.Node) -> Iterator[None]:
    """Turn what goes wrong while ``node`` is read into a MalformedNodeError, where that is the node's fault.

    Numbers that do not fit (an axis beyond the rank, sizes that cannot be reshaped) are always the node's. A TypeError,
    AttributeError or KeyError is, where no version of the operator takes such inputs and attributes; elsewhere it is a
    slip of this package, and is raised as it is.

    Raises:
        MalformedNodeError: the node is at fault.
    """
    try:
        yield
    except (IndexError, OverflowError, ValueError) as error:
        raise MalformedNodeError(str(error)) from error
    except (AttributeError, KeyError, TypeError) as error:
        versions = _schemas(node.op_type) if not node.domain else ()
        if any(_allows(schema, node) for schema in versions):
            raise
        raise MalformedNodeError(str(error)) from error


@cache
def _schemas(op_type: str) -> tuple[onnx.defs.OpSchema, ...]:
    """Return an operator's schema in every version of ONNX's default domain, the newest first."""
    found, version = list[onnx.defs.OpSchema](), onnx.defs.onnx_opset_version()
    while version and onnx.defs.has(op_type, version, ""):
        found.append(onnx.defs.get_schema(op_type, version, ""))
        version = found[-1].since_version - 1
    return tuple(found)


def _allows(schema: onnx.defs.OpSchema, node: ir.Node) -> bool:
    """Return whether a node has the inputs and attributes that a version of its operator asks for, of their kinds."""
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        return False
    for parameter, value in zip(schema.inputs, [*node.inputs, *[None] * len(schema.inputs)], strict=False):
        if value is None and parameter.option == _Option.Single:
            return False
        dtype = None if value is None else value.dtype or (value.const_value.dtype if value.const_value else None)
        if dtype is not None and f"tensor({_NAMES.get(dtype, dtype.name.lower())})" not in parameter.types:
            return False
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return False  # what its function is called with, nobody knows here
    for name, wanted in schema.attributes.items():
        attribute = node.attributes.get(name)
        if attribute is None and wanted.required:
            return False
        if attribute is not None and attribute.type.name != str(wanted.type).rpartition(".")[2]:
            return False
    return True


#: What schemas call types that onnx_ir calls otherwise.
_NAMES: Final = {
    ir.DataType.FLOAT: "float",
    ir.DataType.DOUBLE: "double",
    ir.DataType.BOOL: "bool",
    ir.DataType.STRING: "string",
}
