"""Where the rows of a batch are after a node that moves elements: views, parts, joins and repetitions.

The rules of row_rules.py hold here too.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from onnx_spatialdrop.montecarlo.facts import Dim, Multiple, Unproven
from onnx_spatialdrop.montecarlo.view import Places, Rule, View, same_place

__all__ = ["MOVES", "reshape_target", "reshaped"]

_LAST: Final = 2**31 - 1


def reshape_target(view: View) -> tuple[Dim, ...]:
    """Return the shape that a Reshape is given.

    Raises:
        Unproven: it is not known.
    """
    target = view.get(1).entries
    if target is None:
        raise Unproven("the shape that it makes is not known")
    return target


def reshaped(view: View) -> tuple[tuple[int, int], tuple[Dim, ...]]:
    """Return where a Reshape's rows are and its sizes.

    1. The axes before the samples' axis stay as they are.
    2. At the samples' axis: 0 keeps it; a multiple of N is a new block; -1 is one where the sizes behind it are known.
    3. Everything else writes the number of samples into the shape, or takes rows apart.
    """
    target, dims = list(reshape_target(view)), view.dims()
    axis, block, rank = view.rows()
    zero = view.node.attributes.get_int("allowzero", 0) == 0
    if len(target) <= axis:
        raise Unproven("it joins samples")
    for index in range(axis):  # case 1
        kept = target[index] == 0 and zero
        if not kept and not (isinstance(dims[index], (int, str)) and target[index] == dims[index]):
            raise Unproven("it moves the samples' axis")
        target[index] = dims[index]
    head, rest = target[axis], target[axis + 1 :]
    if any(isinstance(dim, Multiple) for dim in rest):
        raise Unproven("it moves the samples' axis")
    for index, dim in enumerate(rest):
        if dim == 0 and zero:
            at = axis + 1 + index
            if at >= rank:
                raise Unproven("it copies a size that its input does not have")
            rest[index] = dims[at]
    if head == 0 and zero:
        made = block
    elif isinstance(head, Multiple):
        made = head.times
    elif head == -1:
        made = _inferred(block, list(dims[axis + 1 :]), rest)
    else:
        raise Unproven(f"it writes the number of samples into a shape ({head})")
    sizes = [None if dim == -1 else dim for dim in rest]
    return (axis, made), (*target[:axis], Multiple(made), *sizes)


def _inferred(block: int, before: list[Dim], after: list[Dim]) -> int:
    """Return the block of an axis of size -1: what is left of a row of ``before`` when ``after`` is taken out."""
    names = Counter(dim for dim in after if isinstance(dim, str))
    names.subtract(dim for dim in before if isinstance(dim, str))
    if any(names.values()) or any(dim is None or dim == -1 for dim in (*before, *after)):
        raise Unproven("whether it joins samples is not known: sizes are open")
    size, taken = block, 1
    for dim in before:
        size *= dim if isinstance(dim, int) else 1
    for dim in after:
        taken *= dim if isinstance(dim, int) else 1
    if taken < 1 or size % taken or not size:
        raise Unproven("it joins samples")
    return size // taken


def _flatten(view: View) -> Places:
    axis, block, rank = view.rows()
    at = view.node.attributes.get_int("axis", 1)
    at = at + rank if at < 0 else at
    if axis != 0 or at == 0:
        raise Unproven("it joins samples")
    for dim in view.dims()[1:at]:
        if not isinstance(dim, int) or dim == 0:
            raise Unproven("whether it joins samples is not known: sizes are open")
        block *= dim
    return 0, block


def _transpose(view: View) -> Places:
    axis, block, rank = view.rows()
    order = list(view.node.attributes.get_ints("perm", ())) or list(range(rank))[::-1]
    return order.index(axis), block


def _squeeze(view: View) -> Places:
    axis, block, rank = view.rows()
    axes = view.axes(rank)
    if axes is None or axis in axes:
        raise Unproven("it may take the samples' axis away")
    return axis - sum(each < axis for each in set(axes)), block


def _unsqueeze(view: View) -> Places:
    axis, block, rank = view.rows()
    axes = list(view.node.attributes["axes"].as_ints()) if "axes" in view.node.attributes else view.get(1).ints()
    for each in sorted(each % (rank + len(axes)) for each in axes):
        axis += each <= axis
    return axis, block


def _concat(view: View) -> Places:
    place = same_place([view.rows(index)[:2] for index in range(len(view.inputs))])
    if view.axis(0, view.rows()[2]) == place[0]:
        raise Unproven("it puts samples behind samples")
    return place


def _split(view: View) -> Places:
    axis, block, rank = view.rows()
    view.shared_from(1)
    if view.axis(0, rank) == axis:
        raise Unproven("it takes samples apart")
    return axis, block


def _slice(view: View) -> Places:
    axis, block, rank = view.rows()
    view.shared_from(1)
    if view.opset < 10:
        starts, ends = (list(view.node.attributes.get_ints(name, ())) for name in ("starts", "ends"))
        axes = view.axes(rank) or list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        axes_known = view.axes(rank, 3)
        count = view.dims(1)[0]
        if axes_known is None:
            axes_known = list(range(count)) if isinstance(count, int) else []
        axes = axes_known
        if axis not in axes:
            return axis, block
        starts, ends = view.get(1).ints(), view.get(2).ints()
        steps = [1] * len(starts) if view.maybe(4) is None else view.get(4).ints()
    for each, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if each == axis and (start != 0 or end < _LAST or step != 1):
            raise Unproven("it picks samples")
    return axis, block


def _gather(view: View) -> Places:
    data, indices = view.get(0), view.get(1)
    along = view.axis(0, data.rank)
    if data.axis is not None and indices.axis is not None:
        raise Unproven("it looks samples up in samples")
    if data.axis is None:
        if not data.shared or indices.axis is None:
            raise Unproven("it computes with the number of samples")
        return along + indices.axis, indices.block
    if not indices.shared:
        raise Unproven("it computes with the number of samples")
    if along == data.axis:
        raise Unproven("it picks samples")
    return (data.axis if data.axis < along else data.axis - 1 + indices.rank), data.block


def _gather_elements(view: View) -> Places:
    place = same_place([view.rows(index)[:2] for index in range(len(view.inputs))])
    if view.axis(0, view.rows()[2]) == place[0]:
        raise Unproven("it picks samples")
    return place


def _gather_nd(view: View) -> Places:
    place = same_place([view.first_axis(0), view.first_axis(1)])
    if view.node.attributes.get_int("batch_dims", 0) < 1:
        raise Unproven("it picks samples")
    return place


def _pad(view: View) -> Places:
    axis, block, rank = view.rows()
    if view.opset < 11:
        pads = list(view.node.attributes.get_ints("pads", ()))
        axes = list(range(rank))
    else:
        pads = view.get(1).ints()
        axes = view.axes(rank, 3) or list(range(rank))
        view.shared_from(1)
    if len(pads) != 2 * len(axes):
        raise Unproven("its pads do not fit")
    if axis in axes and (pads[axes.index(axis)] or pads[axes.index(axis) + len(axes)]):
        raise Unproven("it adds samples")
    return axis, block


def _resize(view: View) -> Places:
    axis, block, rank = view.rows()
    attributes = view.node.attributes
    mode = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if view.opset < 11 or mode == "tf_crop_and_resize":
        raise Unproven("it crops, or is of an old version")
    named = attributes.get_ints("axes", ())
    axes = [each % rank for each in named] or list(range(rank))
    sizes = view.maybe(3)
    scales = view.maybe(2)
    if axis not in axes:
        view.shared_from(1)
        return axis, block
    at = axes.index(axis)
    if sizes is not None and sizes.dims != (0,):
        if sizes.entries is None or sizes.entries[at] != Multiple(block):
            raise Unproven("it may resize the samples' axis")
        if any(isinstance(entry, Multiple) for index, entry in enumerate(sizes.entries) if index != at):
            raise Unproven("it resizes by the number of samples")
        if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Unproven("it may resize the samples' axis")
        return axis, block
    if scales is None or scales.array is None or float(scales.array.reshape(-1)[at]) != 1.0:
        raise Unproven("it may resize the samples' axis")
    return axis, block


def _tile(view: View) -> Places:
    axis, block, _ = view.rows()
    entries = view.get(1).entries
    if entries is None or entries[axis] != 1 or any(isinstance(entry, Multiple) for entry in entries):
        raise Unproven("it may repeat samples")
    return axis, block


def _one_hot(view: View) -> Places:
    axis, block, rank = view.rows()
    view.shared_from(1)
    at = view.node.attributes.get_int("axis", -1)
    at = at + rank + 1 if at < 0 else at
    return axis + (at <= axis), block


MOVES: Final[dict[str, Rule]] = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Resize": _resize,
    "ScatterElements": _gather_elements,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
