"""What stands in all nodes of a graph, as columns: protobuf reads the bytes of a file again, by a schema made for it.

In that schema a graph has one node. Of a message that may stand there once and comes again, protobuf merges the parts,
so a repeated field of it holds that of all nodes, in their order. Python then asks once, and not once a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final

import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["Columns", "of_body", "of_file"]

#: Attributes of more bytes are none of the columns' business, and files in which nodes have more on average.
_SMALL: Final = 512
_SCHEMA: Final = {
    "Node": {"name": 3, "attribute": 5, "domain": 7, "overload": 8, "metadata": 9, "devices": 10},
    "Value": {"name": 1, "type": 2},
    "Graph": {"node": 1, "value_info": 13},
    "Function": {"node": 7, "value_info": 12},
    "Model": {"graph": 7, "functions": 25},
}
_MESSAGES: Final = {"node": "Node", "value_info": "Value", "graph": "Graph", "functions": "Function"}
_TEXT: Final = ("name", "domain", "overload")


@dataclass(frozen=True)
class Columns:
    """What stands in the nodes and value_infos of one graph or function.

    Attributes:
        is_text: names, domains and overloads of all nodes, and the names of all value_infos, are UTF-8.
        is_plain: no node has a domain or an overload.
        has_metadata: some node has metadata_props.
        has_devices: some node has device_configurations.
        attributes: all attributes, serialized, node after node; an empty one for each that is large.
        types: the types of all value_infos, serialized.
    """

    is_text: bool
    is_plain: bool
    has_metadata: bool
    has_devices: bool
    attributes: list[bytes]
    types: set[bytes]


def of_file(content: bytes, model: onnx.ModelProto) -> list[Columns] | None:
    """Return the columns of the main graph and of each function of a file; None where weights take most of its bytes.

    Args:
        content: the bytes.
        model: what protobuf has read from them.
    """
    nodes = len(model.graph.node) + sum(len(function.node) for function in model.functions)
    if len(content) > _SMALL * nodes:
        return None
    seen = _schema().FromString(content)
    return [_columns(body) for body in (seen.graph, *seen.functions)]


def _columns(body: Any) -> Columns:
    node, infos = body.node, body.value_info
    named = {*node.domain, *node.overload}
    return Columns(
        is_text=_are_text(node.name, named, infos.name),
        is_plain=named <= {""},
        has_metadata=bool(node.metadata),
        has_devices=bool(node.devices),
        attributes=node.attribute[:],
        types={*infos.type},
    )


def of_body(nodes: Iterable[onnx.NodeProto], infos: Iterable[onnx.ValueInfoProto]) -> Columns:
    """Return the same of nodes and value_infos one after the other, which takes longer."""
    named = {text for node in nodes for text in (node.domain, node.overload)}
    return Columns(
        is_text=_are_text((node.name for node in nodes), named, (info.name for info in infos)),
        is_plain=named <= {""},
        has_metadata=any(node.metadata_props for node in nodes),
        has_devices=any(node.device_configurations for node in nodes),
        attributes=[
            attribute.SerializeToString() if attribute.ByteSize() <= _SMALL else b""
            for node in nodes
            for attribute in node.attribute
        ],
        types={info.type.SerializeToString() for info in infos},
    )


def _are_text(*columns: Iterable[str | bytes]) -> bool:
    return set(map(type, chain(*columns))) <= {str}  # protobuf gives bytes for what is no UTF-8


@cache
def _schema() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="onnx_spatialdrop/columns.proto", package="onnx_spatialdrop")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _SCHEMA.items():
        made = file.message_type.add(name=message)
        for name, number in fields.items():
            held = _MESSAGES.get(name)
            kind = kinds.TYPE_STRING if name in _TEXT else kinds.TYPE_BYTES
            once = held is not None and name != "functions"
            field = made.field.add(name=name, number=number, type=kinds.TYPE_MESSAGE if held else kind)
            field.label = kinds.LABEL_OPTIONAL if once else kinds.LABEL_REPEATED
            if held:
                field.type_name = f".onnx_spatialdrop.{held}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_spatialdrop.Model"))
