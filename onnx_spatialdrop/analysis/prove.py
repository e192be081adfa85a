"""Decide whether x * factor + offset is dropout of x: its ratio, its scale, its axes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.broadcast_axes import kind_of_axes, shared_axes
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import Layout, TwoValued, ViewedValue, recover
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.node import FLOAT_TYPES, describe

__all__ = ["Proof", "alpha", "eps", "is_dropout", "lacking", "no_node_of", "prove", "scale_is_deferred"]

#: SELU's fixed point: what alpha dropout puts in the place of dropped values, -scale * alpha.
_ALPHA: Final = -1.0507009873554805 * 1.6732632423543772


@dataclass(frozen=True)
class Proof:
    """What was proven of a product, and why it is no dropout, if it is not.

    Attributes:
        y: the product.
        level: what the mask is applied to.
        ratio: probability that an entry is dropped; None where no outcome is dropped.
        scale: what kept values are multiplied by.
        axes: the axes of x along which one entry is shared; None where that is not proven.
        rank: the rank of x.
        kind: "spatial", "elementwise", "drop_path", "variational", "alpha", "feature_alpha" or "unknown".
        facts: what was proven, in words.
        reason: why this is no dropout; "" where it is.
        lacks: what it would have to be multiplied by to be dropout, if that alone is missing.
        scaled_by: the node, after the product, that multiplies by that, and its other input.
        idle: the product is x as it was.
    """

    y: ir.Value
    level: ViewedValue
    ratio: float | None = None
    scale: float | None = None
    axes: tuple[int, ...] | None = None
    rank: int | None = None
    kind: str = "unknown"
    facts: tuple[str, ...] = ()
    reason: str = ""
    lacks: float | None = None
    scaled_by: tuple[ir.Node, ir.Value] | None = None
    idle: bool = False

    @property
    def x(self) -> ir.Value:
        """A value of the shape and type of what the mask is applied to."""
        return self.level.outer


def is_dropout(abstract: TwoValued) -> bool:
    """Return whether a product has dropout's two values, or is x as it was; its axes are not looked at."""
    scaled = _values(abstract)
    return _idle_level(abstract) is not None if scaled is None else scaled[3] == ""


def _idle_level(abstract: TwoValued) -> ViewedValue | None:
    """Return what a product is, where a switch that is off for good has made it the identity."""
    assert abstract.x is not None
    if abstract.factor[0] != abstract.factor[1] or abstract.offset.any():
        return None
    return next((level for level, multiple in abstract.x.levels if abs(abstract.factor[0] - multiple) <= 1e-6), None)


def _values(abstract: TwoValued) -> tuple[float, float, ViewedValue, str] | None:
    """Return ratio, scale, the level of x that they hold for, and why it is no dropout; None without a dropped side."""
    assert abstract.x is not None
    zero = abstract.factor == 0
    if zero.sum() != 1 or not np.isfinite(abstract.factor).all():
        return None
    dropped = int(np.flatnonzero(zero)[0])
    probability = abstract.threshold if dropped == 0 else 1.0 - abstract.threshold
    kept, wanted = float(abstract.factor[1 - dropped]), 1.0 / (1.0 - probability)
    tolerance = 2 * eps(abstract.offset.dtype) + 2 * abstract.precision * wanted + 1e-6
    ratio = recover(probability, abstract.precision)
    usable = [(value, kept / multiple) for value, multiple in abstract.x.levels if multiple]
    for value, scale in usable:
        if abs(scale / wanted - 1.0) <= (max(tolerance, 2.0**-10) if _is_half(scale) else tolerance):
            reason = "" if not abstract.offset.any() else _misplaced(abstract, dropped)
            return ratio, _stored(scale, ratio, abstract.offset.dtype), value, reason
    value, scale = usable[0]
    reason = f"kept values are multiplied by {scale:.6g}; dropout of ratio {ratio:g} multiplies them by {wanted:.6g}"
    return ratio, scale, value, reason


def _is_half(scale: float) -> bool:
    """Return whether a scale, or its inverse, is a number of float16: one that was rounded to it, as likely as not."""
    with np.errstate(over="ignore", under="ignore"):  # what float16 has no number for becomes infinite, or 0
        return any(abs(float(np.float16(number)) / number - 1.0) <= 1e-7 for number in (scale, 1.0 / scale) if number)


def _misplaced(abstract: TwoValued, dropped: int) -> str:
    if abstract.offset[dropped]:
        return f"dropped values become {abstract.offset[dropped]:g}, not 0"
    return f"kept values have {abstract.offset[1 - dropped]:g} added to them"


def eps(dtype: np.dtype[Any]) -> float:
    """Return the distance from 1 to the next number of a floating-point type; of float32 for any other."""
    finfo: Any = ml_dtypes.finfo
    return float(finfo(dtype).eps) if dtype in spec.DTYPES.values() else 2.0**-23


def _stored(scale: float, ratio: float, dtype: np.dtype[Any]) -> float:
    """Return the scale to store: the user's 1 / (1 - ratio) where the graph's is that to an ulp, else the graph's."""
    exact = spec.explicit_scale(ratio, dtype if dtype in spec.DTYPES.values() else None)
    with np.errstate(over="ignore"):
        rounded = float(np.asarray(scale).astype(dtype if dtype.itemsize < 4 and dtype.kind != "b" else np.float32))
    return exact if abs(rounded / exact - 1.0) <= 2.0**-23 else rounded


def prove(y: ir.Value, abstract: TwoValued, shapes: Shapes) -> Proof:
    """Return whether ``y``, written as x * factor + offset, is dropout of x, and which."""
    assert abstract.x is not None
    found = _values(abstract)
    if found is None:
        return _not_dropped(y, abstract, shapes)
    ratio, scale, x, reason = found
    proof = Proof(y, x, ratio, scale, facts=(f"each entry is 0 with probability {ratio:g}",), reason=reason)
    proof = _with_axes(proof, abstract.layout, shapes)
    if reason and proof.axes is not None and _is_float(proof.x):
        return replace(proof, lacks=lacking(abstract))
    if not reason:
        proof = replace(proof, facts=(*proof.facts, f"kept values are multiplied by {scale:.6g} = 1 / (1 - ratio)"))
    return proof


def lacking(abstract: TwoValued) -> float | None:
    """Return what a product would have to be multiplied by to be dropout; None where it is, or lacks something else."""
    found = _values(abstract)
    if found is None or not found[3] or abstract.offset.any() or found[1] <= 0:
        return None
    return _wanted(abstract) / found[1]


def _wanted(abstract: TwoValued) -> float:
    dropped = int(np.flatnonzero(abstract.factor == 0)[0])
    return 1.0 / (abstract.threshold if dropped else 1.0 - abstract.threshold)


def _is_float(x: ir.Value) -> bool:
    return x.dtype is None or x.dtype in FLOAT_TYPES


def scale_is_deferred(proof: Proof, abstract: TwoValued, node: ir.Node, data: ir.Value) -> Proof:
    """Return the proof of a product whose scale is a factor that ``node`` multiplies by later."""
    assert proof.ratio is not None
    scale = _stored(_wanted(abstract), proof.ratio, abstract.offset.dtype)
    fact = f"kept values are multiplied by {scale:.6g} = 1 / (1 - ratio), in {describe(node)}"
    return replace(proof, scale=scale, reason="", lacks=None, facts=(*proof.facts, fact), scaled_by=(node, data))


def _not_dropped(y: ir.Value, abstract: TwoValued, shapes: Shapes) -> Proof:
    """Return what a product without a dropped side is: alpha dropout, or nothing known."""
    assert abstract.x is not None
    idle = _idle_level(abstract)
    if idle is not None:
        reason = "it is switched off for good: nothing is dropped"
        return Proof(y, idle, 0.0, 1.0, (), kind="elementwise", reason=reason, idle=True)
    proof = _with_axes(Proof(y, abstract.x.levels[0][0]), abstract.layout, shapes)
    values = " or ".join(f"x * {a:g} + {b:g}" for a, b in zip(abstract.factor, abstract.offset, strict=True))
    return replace(proof, kind="unknown", reason=f"no entry is dropped: the values are {values}")


def alpha(proof: Proof, abstract: TwoValued) -> Proof:
    """Return ``proof`` as alpha dropout where the numbers are its numbers (Klambauer et al. 2017), else unchanged."""
    zero = abstract.factor == 0
    if zero.sum() != 1 or proof.ratio is None:
        return proof
    dropped = int(np.flatnonzero(zero)[0])
    q = 1.0 - (abstract.threshold if dropped == 0 else 1.0 - abstract.threshold)
    a = (q + _ALPHA**2 * q * (1.0 - q)) ** -0.5
    b = -a * _ALPHA * (1.0 - q)
    seen = (float(abstract.factor[1 - dropped]), float(abstract.offset[1 - dropped]), float(abstract.offset[dropped]))
    tolerance = 1e-4 + 4 * eps(abstract.offset.dtype)
    if not np.allclose(seen, (a, b, a * _ALPHA + b), rtol=tolerance, atol=tolerance):
        return proof
    kind = "alpha" if proof.axes == () else "feature_alpha"
    reason = "alpha dropout: dropped values become SELU's lower bound, not 0"
    return replace(proof, kind=kind, reason=reason, scale=a)


def no_node_of(rank: int) -> str:
    """Return why dropout of ``rank``, which it may well be, is none that a node could stand for."""
    return f"x has rank {rank}, and SpatialDropout takes ranks 1 to {spec.MAX_RANK}"


def _with_axes(proof: Proof, layout: Layout, shapes: Shapes) -> Proof:
    axes, rank, problem = shared_axes(proof.x, proof.y, layout, shapes)
    if problem:
        return replace(proof, rank=rank, reason=proof.reason or problem)
    assert axes is not None
    x = proof.x
    if not _is_float(x):
        assert x.dtype is not None
        problem = f"x has type {x.dtype.name}"
    if rank is not None and not 1 <= rank <= spec.MAX_RANK:
        problem = no_node_of(rank)
    where = (
        f"one entry is shared along axes {list(axes)} of {rank}" if axes else "every element has an entry of its own"
    )
    kind = kind_of_axes(axes, rank) if rank is not None else "elementwise"
    return replace(
        proof, axes=axes, rank=rank, kind=kind, facts=(*proof.facts, where), reason=proof.reason or problem or ""
    )
