"""Broken models made out of good ones: bytes damaged anywhere, and protobufs that parse and make no sense."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

__all__ = ["damage", "mutate", "scramble"]

_STRINGS = (
    *("", "x", "y", "training_mode", "step", "onnx_spatialdrop", "SpatialDropout", "Dropout", "Constant", "If", "Loop"),
    *("../up", "/etc/passwd", "a" * 5000, "\x00", "\x1b[31m", "é\n\u2028", "{}", "[red]", "ai.onnx"),
    *("location", "offset", "length"),
)
_INTS = (0, 1, -1, 2, 7, 127, -128, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"))
_BYTES = (b"", b"\x00", b"\xff\xfe", b"x" * 7, b"0" * 4096)
_MOST_MESSAGES = 3000


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return a broken copy of a model file, the same for the same state of ``rng``."""
    if rng.random() < 0.25:
        return damage(content, rng)
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        return damage(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        scramble(model, rng)
    with contextlib.suppress(EncodeError, ValueError):
        content = model.SerializeToString()
    return damage(content, rng) if rng.random() < 0.05 else content


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return ``content`` truncated, with bits flipped, or with bytes put in, taken out or repeated."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 100)))
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 30)))
            case 3:
                data[at:at] = data[at:end]
            case 4 if at < len(data):
                data[at] = rng.choice((0, 0x7F, 0x80, 0xFF))
            case _ if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def scramble(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change one thing somewhere in the model, in place; the result is a ModelProto still."""
    messages = list(_messages(model))
    message = rng.choice(messages)
    fields = message.DESCRIPTOR.fields
    used = [field for field, _ in message.ListFields()]
    field = rng.choice(used if used and rng.random() < 0.8 else fields)
    if field.is_repeated:
        _scramble_list(getattr(message, field.name), field, messages, rng)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        other = _alike(field, messages, rng)
        _copy(getattr(message, field.name), other)
    else:
        setattr(message, field.name, _scalar(field, messages, rng))


def _messages(model: Message) -> Iterator[Message]:
    pending, count = [model], 0
    while pending and count < _MOST_MESSAGES:
        message = pending.pop()
        yield message
        count += 1
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                pending.extend(value if field.is_repeated else [value])


def _alike(field: FieldDescriptor, messages: list[Message], rng: random.Random) -> Message | None:
    alike = [message for message in messages if message.DESCRIPTOR is field.message_type]
    return rng.choice(alike) if alike else None


def _copy(target: Message, source: Message | None) -> None:
    if source is None:
        target.SetInParent()
    elif source.ByteSize() < 1 << 20:  # a graph in itself, and so on, grows
        target.CopyFrom(type(source).FromString(source.SerializeToString()))


def _scramble_list(items: Any, field: FieldDescriptor, messages: list[Message], rng: random.Random) -> None:
    action = rng.randrange(5)
    if action == 0 and len(items):
        del items[rng.randrange(len(items))]
    elif action == 1 and len(items) > 1:
        order = list(items)
        rng.shuffle(order)
        kept = [type(item).FromString(item.SerializeToString()) for item in order] if _is_message(field) else order
        del items[:]
        items.extend(kept)
    elif _is_message(field):
        other = rng.choice(items) if len(items) and action == 2 else _alike(field, messages, rng)
        _copy(items.add(), other)
    elif len(items) and action < 4:
        items[rng.randrange(len(items))] = _scalar(field, messages, rng)
    else:
        items.append(_scalar(field, messages, rng))


def _is_message(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE


def _scalar(field: FieldDescriptor, messages: list[Message], rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.choice(_BYTES)
        return rng.choice(_STRINGS) if rng.random() < 0.4 else _some_string(messages, rng)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    number = rng.choice(_INTS) if rng.random() < 0.7 else rng.randrange(-3, 30)
    if kind == FieldDescriptor.CPPTYPE_INT64:
        return number
    if kind == FieldDescriptor.CPPTYPE_INT32:
        return (number + 2**31) % 2**32 - 2**31
    return number % (2**64 if kind == FieldDescriptor.CPPTYPE_UINT64 else 2**32)


def _some_string(messages: list[Message], rng: random.Random) -> str:
    """Return a string that the model holds somewhere, so that names collide and loops close."""
    for _ in range(20):
        for field, value in rng.choice(messages).ListFields():
            if field.type == FieldDescriptor.TYPE_STRING:
                found = rng.choice(value) if field.is_repeated else value
                if found:
                    return str(found)
    return "x"
