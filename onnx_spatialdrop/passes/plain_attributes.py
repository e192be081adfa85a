"""The attributes of a plain file: equal ones are looked at once, and of nodes that differ in their seeds only, one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse.untagged import MARKS
from onnx_spatialdrop.storage.interned import Interned, words
from onnx_spatialdrop.storage.plainfile import Ints, NotPlainError, PlainFile, chosen, need
from onnx_spatialdrop.storage.wellformed_values import MalformedError, refuse_attribute
from onnx_spatialdrop.storage.wire import Fields

__all__ = ["check_attributes"]

_GRAPHS: Final = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
#: How an attribute "seed" of type INT begins and ends; between them is a varint.
_SEED_HEAD: Final = b"\n\x04seed\x18"
_SEED_TAIL: Final = b"\xa0\x01\x02"
_LONGEST_VARINT: Final = 10
_LOW: Final = np.uint64(2**56 - 1)


def check_attributes(file: PlainFile, spatial: Ints) -> None:
    """Check the attributes of all nodes, and what the operator's definition says of those of ``spatial``.

    Raises:
        NotPlainError: a subgraph, external data, a multiplier of Philox, what is no attribute, one that a node has
            twice, or a SpatialDropout node that is none.
    """
    fields, mine = file.attributes, chosen(len(file.nodes), spatial)
    others = fields.where(~mine[fields.row])
    contents = others.values()
    name_of = _check(contents)
    repeated = np.flatnonzero(np.bincount(others.row, minlength=1)[others.row] > 1).tolist()
    named = {(row, name_of[contents[i]]) for i, row in zip(repeated, others.row[repeated].tolist(), strict=True)}
    need(len(named) == len(repeated))
    fields = fields.where(mine[fields.row])
    for row in _representatives(fields):
        first, last = np.searchsorted(fields.row, (row, row + 1))
        _check(fields.where(np.arange(first, last)).values())
        _check_node(file, row)
    without = np.flatnonzero(mine & ~chosen(len(mine), fields.row))
    if len(without):
        _check_node(file, int(without[0]))


def _check(contents: Iterable[bytes]) -> dict[bytes, str]:
    """Check attributes, equal ones once; return the name of each."""
    names: dict[bytes, str] = {}
    try:
        for content in set(contents):
            attribute = onnx.AttributeProto.FromString(content)
            need(attribute.type not in _GRAPHS)
            need(not any(tensor.data_location for tensor in (attribute.t, *attribute.tensors)))
            need(not any(mark in content for mark in MARKS))  # the operator's own draws without their tags
            refuse_attribute(attribute, "")
            attribute.s.decode()  # where it is no UTF-8, wellformed.py decides
            names[content] = attribute.name
    except (MalformedError, DecodeError, UnicodeDecodeError):
        raise NotPlainError from None
    return names


def _check_node(file: PlainFile, row: int) -> None:
    proto = file.node(row)
    need(len({attribute.name for attribute in proto.attribute}) == len(proto.attribute))
    try:
        attributes = [ir.serde.deserialize_attribute(attribute) for attribute in proto.attribute]
        inputs = [ir.Value(name=name) for name in proto.input]
        op.read(ir.Node(spec.DOMAIN, spec.OP_TYPE, inputs, attributes, num_outputs=2))
    except (SpecError, ValueError, TypeError, KeyError, IndexError):
        raise NotPlainError from None


def _representatives(fields: Fields) -> Iterator[int]:
    """Yield nodes such that every other one differs from one of them in its seed only, or not at all."""
    seed = _seeds(fields)
    kept = fields.where(~seed)
    ids = Interned(fields.blob, kept.start, kept.end, few=True).ids
    count = int(fields.row.max(initial=-1)) + 1
    seeds, size = np.bincount(fields.row[seed], minlength=count), np.bincount(kept.row, minlength=count)
    yield from np.flatnonzero(seeds > 1).tolist()
    first = np.cumsum(size) - size
    for each in np.flatnonzero(np.bincount(size)).tolist():
        for given in (0, 1):
            alike = np.flatnonzero((seeds == given) & (size == each))
            ends = (np.arange(len(alike)) + 1) * 8 * each
            rows = ids[first[alike][:, None] + np.arange(each)].tobytes()
            one = Interned(rows, ends - 8 * each, ends, few=True).first if each else slice(given)
            yield from alike[one].tolist()


def _seeds(fields: Fields) -> npt.NDArray[np.bool_]:
    """Return which attributes are a seed, as protobuf writes it."""
    found, buffer, read = np.zeros(len(fields.row), bool), np.frombuffer(fields.blob, np.uint8), words(fields.blob)
    fixed = len(_SEED_HEAD) + len(_SEED_TAIL)
    size = fields.end - fields.start
    likely = np.flatnonzero((size > fixed) & (size <= fixed + _LONGEST_VARINT))
    head, tail = (np.uint64(int.from_bytes(part, "little")) for part in (_SEED_HEAD, _SEED_TAIL))
    likely = likely[read[fields.start[likely]] & _LOW == head]
    likely = likely[read[fields.end[likely] - 8] >> np.uint64(40) == tail]
    found[likely] = True
    position, last = fields.start[likely] + len(_SEED_HEAD), fields.end[likely] - len(_SEED_TAIL) - 1
    while len(likely):
        found[likely[(buffer[position] < 0x80) != (position == last)]] = False
        more = position < last
        likely, position, last = likely[more], position[more] + 1, last[more]
    return found
