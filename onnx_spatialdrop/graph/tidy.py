"""Shorten chains of views that dropout had kept apart. Only chains that begin at the values it is given are touched.

Exporters move transpositions to where layouts change and cancel them where they meet; a dropout between two of them
was in the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import prune, replace
from onnx_spatialdrop.graph.axes import axes_of

__all__ = ["tidy_views"]

#: For each axis of a view's result, the axis of the source that it is; None for a new axis of size 1.
Axes = list[int | None]

_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


def tidy_views(model: ir.Model, values: Iterable[ir.Value], opset: int) -> None:
    """Shorten the chains that begin with a Transpose that computes one of ``values``, in place.

    1. Transpose, Squeeze and Unsqueeze in a row, each read by the next alone, that leave the order of axes as it was:
       one Unsqueeze stands for all, or nothing where no axis is new.
    2. A Transpose that only a reduction without kept dimensions reads, which leaves the other axes in order: the
       reduction takes the axes as they were.
    3. Anything else stays.
    """
    for value in values:
        first = value.producer()
        if first is None or first.graph is None or first.domain or first.op_type != "Transpose" or not first.inputs:
            continue
        source, axes, node = first.inputs[0], _apply(first, None), first
        shortest: tuple[ir.Node, Axes] | None = None
        while axes is not None:
            following = _only_reader(node)
            if following is None:
                break
            if following.op_type in _REDUCTIONS and node is first:
                _reduce(model, first, following, axes)  # case 2
                break
            axes, node = _apply(following, axes), following
            if axes is not None and [axis for axis in axes if axis is not None] == list(range(_rank(first))):
                shortest = node, axes
        if shortest is not None and source is not None:
            _shorten(model, source, *shortest, opset)  # case 1


def _rank(transpose: ir.Node) -> int:
    return len(transpose.attributes.get_ints("perm", ()))


def _only_reader(node: ir.Node) -> ir.Node | None:
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or uses[0].idx != 0 or output.is_graph_output() or uses[0].node.graph is not node.graph:
        return None
    return uses[0].node if uses[0].node.domain == "" else None


def _apply(node: ir.Node, axes: Axes | None) -> Axes | None:
    """Return the axes after ``node``; None where it is no view whose axes are known."""
    if node.op_type == "Transpose":
        order = list(node.attributes.get_ints("perm", ()))
        before: Axes = list(range(len(order))) if axes is None else axes
        return [before[axis] for axis in order] if order and len(order) == len(before) else None
    if axes is None or node.op_type not in ("Squeeze", "Unsqueeze"):
        return None
    given = axes_of(node)
    if given is None:
        return None
    if node.op_type == "Unsqueeze":
        rank, rest = len(axes) + len(given), iter(axes)
        new = {axis % rank for axis in given}
        return [None if axis in new else next(rest) for axis in range(rank)]
    gone = {axis % len(axes) for axis in given}
    if any(axes[axis] is not None for axis in gone):
        return None
    return [axis for index, axis in enumerate(axes) if index not in gone]


def _shorten(model: ir.Model, source: ir.Value, last: ir.Node, axes: Axes, opset: int) -> None:
    old, graph = last.outputs[0], last.graph
    assert graph is not None
    new = [index for index, axis in enumerate(axes) if axis is None]
    if not new:
        inner = last.inputs[0]
        replace.splice(last, source)
        prune.prune_unused(model, [inner])
        return
    if opset < 13:
        node = ir.Node("", "Unsqueeze", [source], [ir.AttrInt64s("axes", new)], name=last.name)
    elif isinstance(graph, ir.Graph):
        tensor = ir.tensor(np.array(new, np.int64), name=f"{old.name}/axes")
        where = ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype))
        where.shape = ir.Shape([len(new)])
        graph.register_initializer(where)
        node = ir.Node("", "Unsqueeze", [source, where], name=last.name)
    else:
        return
    graph.insert_before(last, node)
    replace.take_over(old, node.outputs[0])
    prune.prune_unused(model, [old])


def _reduce(model: ir.Model, transpose: ir.Node, reduction: ir.Node, axes: Axes) -> None:
    given: Sequence[int] = reduction.attributes.get_ints("axes", ())
    if not given or reduction.attributes.get_int("keepdims", 1) != 0:
        return
    gone = {axis % len(axes) for axis in given}
    rest = [axis for index, axis in enumerate(axes) if index not in gone and axis is not None]
    if rest != sorted(rest):
        return
    reduced = sorted(axis for index, axis in enumerate(axes) if index in gone and axis is not None)
    reduction.attributes["axes"] = ir.AttrInt64s("axes", reduced)
    reduction.replace_input_with(0, transpose.inputs[0])
    prune.prune_unused(model, [transpose.outputs[0]])
