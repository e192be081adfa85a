"""Values of one draw beside each other: whether they change at the same places, and where they stand. Pure."""

from __future__ import annotations

from onnx_spatialdrop.analysis.dim_algebra import ShapeOf
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import AbstractValue, Layout, NotRepresentableError, ScaleChain, TwoValued

__all__ = ["common_root", "common_threshold", "different_thresholds", "join_layouts"]


def common_root(what: str, a: TwoValued, b: TwoValued) -> ScaleChain:
    """Return the activation that two products have in common."""
    if a.x is None or b.x is None:
        x = a.x or b.x
        assert x is not None
        return x
    if a.x.root != b.x.root:
        raise NotRepresentableError(f"{what} combines two activations")
    return ScaleChain(a.x.root, tuple(dict(a.x.levels + b.x.levels).items()))


def join_layouts(a: TwoValued, b: TwoValued, shapes: Shapes) -> Layout:
    """Return the layout of a result of two operands of one draw; an operand with equal outcomes is a constant."""
    if different_thresholds(a, b):
        raise NotRepresentableError("one draw is cut at two thresholds")
    one, two = a.layout, b.layout
    if one == two:
        return one
    if isinstance(one.entries, ShapeOf) or isinstance(two.entries, ShapeOf):
        raise NotRepresentableError("masks of unknown shape meet")
    rank = max(len(one.entries), len(two.entries))
    padded = [(1,) * (rank - len(entries)) + entries for entries in (one.entries, two.entries)]
    if padded[0] != padded[1] or one.view != two.view:
        raise NotRepresentableError("one draw is used in two arrangements")
    if isinstance(one.dims, ShapeOf) or isinstance(two.dims, ShapeOf):
        raise NotRepresentableError("masks of unknown shape meet")
    return Layout(padded[0], shapes.broadcast(one.dims, two.dims), one.view)


def different_thresholds(a: AbstractValue | None, b: AbstractValue | None) -> bool:
    """Return whether two masks of one draw change at different places; one with equal outcomes changes nowhere."""
    if not isinstance(a, TwoValued) or not isinstance(b, TwoValued) or _is_sure(a) or _is_sure(b):
        return False
    return (a.threshold, a.cuts) != (b.threshold, b.cuts)


def common_threshold(*masks: TwoValued) -> TwoValued:
    """Return the mask that is cut where a result of all of them is."""
    return next((mask for mask in masks if not _is_sure(mask)), masks[0])


def _is_sure(mask: TwoValued) -> bool:
    return bool(mask.factor[0] == mask.factor[1] and mask.offset[0] == mask.offset[1])
