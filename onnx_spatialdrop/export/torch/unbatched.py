"""Take off the batch of one that torch puts around a spatial dropout whose input has none. torch is never imported."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnx_spatialdrop.export.markers import CALL, Call, find_markers
from onnx_spatialdrop.graph import prune
from onnx_spatialdrop.graph.axes import axes_of

__all__ = ["unbatched"]


def unbatched(model: ir.Model, calls: dict[int, Call]) -> None:
    """Let a marker between an Unsqueeze and Squeezes of axis 0 stand on the tensor without that axis, in place.

    Its call in ``calls`` then has a rank, and axes, that count without it.
    """
    orphans: list[ir.Value | None] = []
    for marker in find_markers(model):
        call = calls[marker.attributes[CALL].as_int()]
        squeezes = _squeezes(marker) if call.axes and min(call.axes) >= 2 else []
        if not squeezes:
            continue
        source, graph = marker.inputs[0], marker.graph
        assert source is not None
        assert graph is not None
        before = source.producer()
        assert before is not None
        orphans += [*before.inputs[1:], *(value for node in squeezes for value in node.inputs[1:])]
        first, old = squeezes[0].outputs[0], marker.outputs[0]
        for squeeze in squeezes[1:]:
            squeeze.outputs[0].replace_all_uses_with(first, replace_graph_outputs=True)
        marker.replace_input_with(0, before.inputs[0])
        name = first.name
        first.replace_all_uses_with(old, replace_graph_outputs=True)
        old.type, old.shape = first.type or old.type, first.shape
        graph.remove(squeezes, safe=True)
        old.name = name
        orphans.append(source)
        calls[marker.attributes[CALL].as_int()] = replace(
            call, rank=call.rank - 1, axes=tuple(axis - 1 for axis in call.axes)
        )
    prune.prune_unused(model, [value for value in orphans if value is not None])


def _squeezes(marker: ir.Node) -> list[ir.Node]:
    """Return the Squeeze nodes that take off the batch of one that an Unsqueeze before ``marker`` put on; else []."""
    x, y = marker.inputs[0], marker.outputs[0]
    before, after = x.producer() if x is not None else None, [use.node for use in y.uses()]
    if before is None or y.is_graph_output() or not after:
        return []
    if [node.op_type for node in (before, *after)] != ["Unsqueeze", *["Squeeze"] * len(after)]:
        return []
    if any(node.graph is not marker.graph for node in (before, *after)):
        return []
    return after if all(axes_of(node) == [0] for node in (before, *after)) else []
