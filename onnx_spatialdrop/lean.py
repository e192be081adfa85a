"""ModelProto read in part: for files of very many nodes."""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

__all__ = ["full", "lean"]


@cache
def lean() -> type[Message]:
    """Return ModelProto with nodes and value_info left as bytes: what is not looked into costs nothing."""
    file = descriptor_pb2.FileDescriptorProto()
    onnx.ModelProto.DESCRIPTOR.file.CopyToProto(file)
    graph = next(message for message in file.message_type if message.name == "GraphProto")
    for field in graph.field:
        if field.name in ("node", "value_info"):
            field.type = field.TYPE_BYTES
            field.ClearField("type_name")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.ModelProto"))
    return found


def full(tensor: Any) -> onnx.TensorProto:
    """Return a tensor of such a model as one of onnx."""
    copy = onnx.TensorProto()
    copy.ParseFromString(tensor.SerializeToString())
    return copy
