"""Types and shapes in a ModelProto, kept true when names go or stand for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import onnx

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.attributes import Given, checked
from onnx_spatialdrop.storage.order import reorder
from onnx_spatialdrop.storage.survey import Block

__all__ = ["attributes_of", "delete", "settle_infos", "type_of"]

#: Entries of a list by the names that they speak of, with their places.
_Said = dict[str, tuple[int, Any]]


def type_of(block: Block, name: str) -> onnx.TypeProto | None:
    """Return the type that the file gives a name of a block; None where it says nothing."""
    body: Any = block.body
    for values in (body.value_info, *(() if isinstance(body, onnx.FunctionProto) else (body.input, body.output))):
        for value in values:
            if value.name == name and value.HasField("type"):
                found: onnx.TypeProto = value.type
                return found
    for tensor in () if isinstance(body, onnx.FunctionProto) else body.initializer:
        if tensor.name == name:
            return onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    return None


def attributes_of(node: onnx.NodeProto, dtype: np.dtype[Any] | None = None) -> spec.Attributes:
    """Return the checked attributes of a SpatialDropout node; see operator.attributes.checked."""
    given = {}
    for each in node.attribute:
        value = None if each.ref_attr_name else onnx.helper.get_attribute_value(each)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        given[each.name] = Given(each.type, value, each.ref_attr_name)
    where = f"node {node.name!r}" if node.name else f"the {node.op_type} node that computes {(*node.output, '')[0]!r}"
    return checked(where, node.input, 2 if len(node.output) == 1 else len(node.output), given, dtype)


def settle_infos(
    gone: Mapping[Block, set[str]],
    moved: Mapping[Block, Mapping[str, tuple[Block, str]]],
    is_typed: Callable[[Block, str], bool],
) -> None:
    """Delete what is said of names that are ``gone``; let what is said of those ``moved`` be said of what they are now.

    Args:
        gone: names of each block.
        moved: for names of each block the block and name that stand in their place.
        is_typed: whether a name of a block says of itself what it is.
    """
    wanted = {block: gone.get(block, set()) | moved.get(block, {}).keys() for block in (*gone, *moved)}
    lost = {block: set(names) for block, names in wanted.items()}
    for targets in moved.values():
        for home, name in targets.values():
            wanted.setdefault(home, set()).add(name)
    entries = {block: block.body.value_info[:] for block in wanted}  # held: to make these objects again costs
    infos = {block: _said(entries[block], "name", names) for block, names in wanted.items()}
    marks = {block: _said(_annotations(block), "tensor_name", names) for block, names in wanted.items()}
    doomed = [
        (items, [said[name][0] for name in names & said.keys()])
        for block, names in lost.items()
        for items, said in ((block.body.value_info, infos[block]), (_annotations(block), marks[block]))
    ]
    for block, targets in moved.items():
        for name, (home, target) in targets.items():
            if name in infos[block]:
                _say(infos[block][name][1], home, target, infos[home], is_typed(home, target))
            if name in marks[block] and target not in marks[home] and isinstance(home.body, onnx.GraphProto):
                marks[home][target] = -1, home.body.quantization_annotation.add()
                marks[home][target][1].CopyFrom(marks[block][name][1])
                marks[home][target][1].tensor_name = target
    for items, places in doomed:
        delete(items, places)


def delete(items: Any, places: Iterable[int]) -> None:
    """Delete entries of a repeated field: one by one it would move all that follow, again and again."""
    gone = set(places)
    if gone:
        reorder(items, [place in gone for place in range(len(items))])
        del items[-len(gone) :]


def _annotations(block: Block) -> Any:
    return [] if isinstance(block.body, onnx.FunctionProto) else block.body.quantization_annotation


def _said(items: Any, key: str, names: set[str]) -> _Said:
    named = enumerate(map(attrgetter(key), items)) if names else ()
    return {name: (place, items[place]) for place, name in named if name in names}


def _say(info: onnx.ValueInfoProto, home: Block, target: str, said: _Said, typed: bool) -> None:
    """Let ``info`` be said of ``target`` where nothing is said of it, or no shape."""
    if target not in said:
        if not typed:
            added = home.body.value_info.add()
            added.CopyFrom(info)
            added.name = target
            said[target] = -1, added
        return
    mine, other = said[target][1].type, info.type
    if mine.WhichOneof("value") is None:
        mine.CopyFrom(other)
    elif mine.HasField("tensor_type") and not mine.tensor_type.HasField("shape") and _has_shape(other):
        mine.tensor_type.shape.CopyFrom(other.tensor_type.shape)


def _has_shape(type_: onnx.TypeProto) -> bool:
    return bool(type_.HasField("tensor_type") and type_.tensor_type.HasField("shape"))
