"""Where a node may stand instead of directly at its product: outside of views that undo each other. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_spatialdrop.graph.axes import axes_of

__all__ = ["Place", "hoist"]


@dataclass(frozen=True)
class Place:
    """Where a SpatialDropout node goes: between ``x`` and the users of ``y``."""

    x: ir.Value
    y: ir.Value
    axes: tuple[int, ...]


def hoist(place: Place) -> Place:
    """Return the outermost place that means the same: outside of Transpose, Squeeze, Unsqueeze that are undone."""
    outer = _out_of_views(place)
    while outer is not None:
        place, outer = outer, _out_of_views(outer)
    return place


def _only_user(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    user = uses[0].node
    return user if producer is not None and user.graph is producer.graph and user.domain == "" else None


def _out_of_views(place: Place) -> Place | None:
    before, after = place.x.producer(), _only_user(place.y)
    if before is None or after is None or before.domain != "":
        return None
    if not before.inputs or before.inputs[0] is None:
        return None
    if before.op_type == after.op_type == "Transpose":
        axes = _out_of_transposes(before, after, place.axes)
    elif {before.op_type, after.op_type} == {"Squeeze", "Unsqueeze"}:
        axes = _out_of_squeezes(before, after, place.axes)
    else:
        return None
    return None if axes is None else replace(place, x=before.inputs[0], y=after.outputs[0], axes=axes)


def _out_of_transposes(before: ir.Node, after: ir.Node, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    there, back = before.attributes.get_ints("perm", ()), after.attributes.get_ints("perm", ())
    if len(there) != len(back) or [there[axis] for axis in back] != list(range(len(there))):
        return None
    return tuple(sorted(there[axis] for axis in axes))


def _out_of_squeezes(before: ir.Node, after: ir.Node, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    one, two = axes_of(before), axes_of(after)
    wide = before.outputs[0] if before.op_type == "Unsqueeze" else before.inputs[0]
    if not one or not two or wide is None:
        return None
    rank = len(wide.shape) if wide.shape is not None else None
    if rank is None and min(*one, *two) < 0:
        return None
    gone = {axis % rank if rank is not None else axis for axis in one}
    if gone != {axis % rank if rank is not None else axis for axis in two}:
        return None
    if before.op_type == "Unsqueeze":
        return tuple(axis - sum(other < axis for other in gone) for axis in axes if axis not in gone)
    total = len(gone) + max((*axes, *gone), default=0) + 1
    kept = [axis for axis in range(total + len(gone)) if axis not in gone]
    return tuple(kept[axis] for axis in axes)
