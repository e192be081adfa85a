"""Whether a tensor, a type or an attribute of a protobuf is one; wellformed.py looks at how they hang together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import onnx
from onnx import AttributeProto, TensorProto

__all__ = [
    "MalformedError",
    "is_plain_and_whole",
    "refuse_attribute",
    "refuse_tensor",
    "refuse_type",
    "subgraphs",
    "tensors",
    "text",
]

_ELEMENTS: Final = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_ATTRIBUTES: Final = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}
#: The field of an attribute that holds a value of each type, and those that any attribute may have.
_HELD_IN: Final = {
    number: {"STRING": "s", "TENSOR": "t", "GRAPH": "g", "TYPE_PROTO": "tp", "FLOAT": "f", "INT": "i"}.get(
        name, name.lower()
    )
    for name, number in AttributeProto.AttributeType.items()
}
_BESIDE: Final = frozenset({"name", "ref_attr_name", "doc_string", "type"})
#: Bits of an element in raw_data; 8 times the itemsize for all others.
_BITS: Final = {
    number: bits
    for bits, names in {
        2: ("INT2", "UINT2"),
        4: ("INT4", "UINT4", "FLOAT4E2M1"),
        6: ("FLOAT6E2M3", "FLOAT6E3M2"),
        8: ("INT8", "UINT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"),
        16: ("INT16", "UINT16", "FLOAT16", "BFLOAT16"),
        32: ("INT32", "UINT32", "FLOAT"),
        64: ("INT64", "UINT64", "DOUBLE", "COMPLEX64"),
        128: ("COMPLEX128",),
    }.items()
    for name, number in TensorProto.DataType.items()
    if name in names
}
_TYPED: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_LARGEST: Final = 2**63 - 1


class MalformedError(Exception):
    """What is wrong, in words."""


def text(name: str) -> str:
    """Return a name; raise MalformedError where it is not UTF-8."""
    if not isinstance(name, str):  # protobuf gives bytes then
        raise MalformedError(f"the name {name!r} is not UTF-8")
    return name


def refuse_attribute(attribute: AttributeProto, node: str) -> None:
    """Raise MalformedError for an attribute without a name or type, or with a value of another type.

    ``node`` is how messages name its node. Subgraphs are not looked into.
    """
    if not text(attribute.name):
        raise MalformedError(f"{node} has an attribute without a name")
    if attribute.type not in _ATTRIBUTES:
        raise MalformedError(f"attribute {attribute.name!r} of {node} has no type")
    held = {field.name for field, _ in attribute.ListFields()} - _BESIDE
    expected = set() if attribute.ref_attr_name else {_HELD_IN[attribute.type]}
    if not held <= expected:
        stray = sorted(held - expected)[0]
        raise MalformedError(f"attribute {attribute.name!r} of {node} is not of the type of its {stray!r}")
    if attribute.ref_attr_name:
        text(attribute.ref_attr_name)
        return
    for tensor in tensors(attribute):
        refuse_tensor(tensor, f"attribute {attribute.name!r} of {node}")


def tensors(attribute: AttributeProto) -> Sequence[TensorProto]:
    """Return the tensors that an attribute holds."""
    if attribute.ref_attr_name or attribute.type not in (AttributeProto.TENSOR, AttributeProto.TENSORS):
        return ()
    return [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors[:]


def subgraphs(attribute: AttributeProto) -> Sequence[onnx.GraphProto]:
    """Return the graphs that an attribute holds."""
    if attribute.type == AttributeProto.GRAPH:
        return [attribute.g]
    return attribute.graphs[:] if attribute.type == AttributeProto.GRAPHS else ()


def refuse_type(value: onnx.ValueInfoProto) -> None:
    """Raise MalformedError for a value whose elements are of no type that ONNX has."""
    found: Any = value.type
    while found is not None:
        kind = found.WhichOneof("value")
        held: Any = getattr(found, kind) if kind else None
        found = held.elem_type if kind in ("sequence_type", "optional_type") else None
        element = held.elem_type if kind in ("tensor_type", "sparse_tensor_type") else 0
        if element and element not in _ELEMENTS:
            raise MalformedError(f"value {value.name!r} has elements of the unknown type {element}")


def refuse_tensor(tensor: TensorProto, what: str) -> None:
    """Raise MalformedError for a tensor that holds more or less than it says; ``what`` is how messages name it."""
    if tensor.data_type not in _ELEMENTS:
        raise MalformedError(f"{what} has elements of the unknown type {tensor.data_type}")
    if any(dim < 0 for dim in tensor.dims):
        raise MalformedError(f"{what} has the dims {list(tensor.dims)}")
    count = math.prod(tensor.dims)
    bits = _BITS.get(tensor.data_type, 64)
    if count * bits > 8 * _LARGEST:
        raise MalformedError(f"{what} has the dims {list(tensor.dims)}, which no memory holds")
    if tensor.data_location == TensorProto.EXTERNAL:
        _place(tensor, what)
        return
    if tensor.HasField("raw_data"):
        held, needed, unit = len(tensor.raw_data), -(-count * bits // 8), "bytes"
    else:
        held, needed, unit = sum(len(getattr(tensor, field)) for field in _TYPED), _entries(tensor, count), "entries"
    if held != needed:
        raise MalformedError(f"{what} has the dims {list(tensor.dims)} and holds {held} {unit} in place of {needed}")


def is_plain_and_whole(tensor: TensorProto) -> bool:
    """Return whether a tensor holds as many raw bytes as it says; False says nothing. Most weights are such."""
    bits, dims = _BITS.get(tensor.data_type, 0), tensor.dims[:]
    if not bits or tensor.data_location or not tensor.HasField("raw_data") or (dims and min(dims) < 0):
        return False
    return bool(len(tensor.raw_data) == -(-math.prod(dims) * bits // 8))


def _place(tensor: TensorProto, what: str) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        raise MalformedError(f"{what} has external data, and does not say in which file")
    for key in ("offset", "length"):
        number = entries.get(key, "0")
        if not (number.isascii() and number.isdigit() and len(number) < 20):
            raise MalformedError(f"{what} has external data with the {key} {number!r}")


def _entries(tensor: TensorProto, count: int) -> int:
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    bits = _BITS.get(tensor.data_type, 64)
    return -(-count * bits // 8) if bits < 8 else count
