"""Compare one step of a framework with one of the model, and say in words how they part. Plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.verify.framework import Array, FrameworkStep, Layer
from onnx_spatialdrop.verify.model import Seen
from onnx_spatialdrop.verify.result import Divergence

__all__ = ["TOLERANCES", "compare_layer", "compare_output", "difference", "limit_of", "lookalike", "misfits"]

#: What an output may differ by, relative to its largest value, by its type. A node's scale is a float32, so that
#: doubles are off by half a unit of float32 for each dropout.
TOLERANCES: Final = {"float64": 1e-6, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
#: What a kept value may differ by from X times the framework's scale, in units of the type's epsilon (float32's for
#: doubles), relative to itself: both round the scale and the product.
_ULPS: Final = 4
#: Masks of fewer entries are equal by chance too often to conclude anything.
_TELLING: Final = 8


def compare_layer(
    step: int, layer: Layer, framework: FrameworkStep, seen: Seen, tolerance: float | None
) -> list[Divergence]:
    """Return how a layer's mask, and what it makes of its input, part from the framework's; [] where they do not.

    Masks are compared bit for bit. Kept values must be X times the framework's scale, dropped ones zero, X being the
    model's own: what earlier layers did wrong does not count here. X itself is compared as an output is.
    """
    mask = np.asarray(framework.masks[layer.name])
    if mask.shape != seen.mask.shape:
        text = f"the framework's mask has shape {mask.shape}, the model's {seen.mask.shape}"
        return [Divergence(step, layer.name, "shape", text)]
    found = []
    if layer.name in framework.inputs:
        reached = compare_output(step, layer.name, framework.inputs[layer.name], seen.x, tolerance, layer.dtype)
        found += [replace(reached, what="input", text=f"its input {reached.text}")] if reached else []
    if not np.array_equal(mask, seen.mask):
        found.append(Divergence(step, layer.name, "mask", _masks(mask, seen.mask)))
    wrong = _values(layer, framework.scales.get(layer.name), seen)
    if wrong:
        found.append(Divergence(step, layer.name, "value", wrong))
    return found


def misfits(step: int, layers: Sequence[Layer], fed: Mapping[str, Array]) -> list[Divergence]:
    """Return which masks cannot be fed, because the model's inputs have other shapes."""
    found = []
    for layer in layers:
        if layer.mask_input is None or layer.mask_dims is None:
            continue
        shape = fed[layer.mask_input].shape
        same = (dim in (None, size) for dim, size in zip(layer.mask_dims, shape, strict=False))
        if len(shape) != len(layer.mask_dims) or not all(same):
            dims = ", ".join("?" if dim is None else str(dim) for dim in layer.mask_dims)
            text = f"the framework's mask has shape {shape}, the model's input {layer.mask_input!r} takes ({dims})"
            found.append(Divergence(step, layer.name, "shape", text))
    return found


def _masks(expected: npt.NDArray[np.bool_], got: npt.NDArray[np.bool_]) -> str:
    where = np.argwhere(expected != got)
    first = tuple(int(index) for index in where[0])
    told = ("keeps", "drops") if expected[first] else ("drops", "keeps")
    at = f"the first at {list(first)}, which the framework {told[0]} and the model {told[1]}"
    return f"{len(where)} of {expected.size} mask entries differ, {at}"


def _values(layer: Layer, scale: float | None, seen: Seen) -> str:
    """Return what is wrong with Y, given X and the model's own mask; "" where nothing is."""
    dtype = spec.DTYPES[layer.dtype or "float32"]
    factor = float(spec.kept_scale(layer.ratio, layer.scale, np.dtype(np.float64))) if scale is None else scale
    kept = np.broadcast_to(seen.mask, seen.x.shape)
    if np.any(seen.y[~kept] != 0):
        return "values that the mask drops are not zero"
    finfo: Any = ml_dtypes.finfo
    epsilon = max(float(finfo(dtype).eps), float(finfo(np.float32).eps))
    with np.errstate(all="ignore"):
        expected = (seen.x * factor).astype(dtype).astype(np.float64)
        limit = _ULPS * epsilon * np.abs(expected) + float(finfo(dtype).smallest_subnormal)
        near = (np.abs(seen.y - expected) <= limit) | ~np.isfinite(expected)
        if np.all(near | ~kept):
            return ""
        used = kept & np.isfinite(seen.x) & (seen.x != 0)
        ratios = seen.y[used] / seen.x[used]
    median = f"{float(np.median(ratios)):.9g}" if ratios.size else "something else"
    return f"kept values are multiplied by {median}, the framework's by {factor:.9g}"


def compare_output(
    step: int, name: str, expected: Array, got: Array, tolerance: float | None, dtype: str | None = None
) -> Divergence | None:
    """Return how an output parts from the framework's; None where it does not.

    Args:
        step: the number of the step.
        name: the output's name.
        expected: the framework's.
        got: the model's.
        tolerance: what they may differ by, relative to the largest value; None: as TOLERANCES has it for the type.
        dtype: the type that counts, where it is not the one of ``got``.
    """
    if expected.shape != got.shape:
        return Divergence(step, name, "output", f"the framework's has shape {expected.shape}, the model's {got.shape}")
    limit = limit_of(dtype or str(got.dtype), tolerance)
    found = difference(expected, got)
    if found <= limit:
        return None
    return Divergence(step, name, "output", f"differs by {found:.2g} of its largest value; allowed: {limit:.2g}")


def limit_of(dtype: str, tolerance: float | None) -> float:
    """Return what an output may differ by: ``tolerance``, or that of its type; integers and bools not at all."""
    return TOLERANCES.get(dtype, 0.0) if tolerance is None else tolerance


def difference(expected: Array, got: Array) -> float:
    """Return the largest absolute difference, relative to the largest absolute value of ``expected``.

    Infinities and NaNs must be in the same places, or the difference is infinite.
    """
    a, b = (np.asarray(each).astype(np.float64) for each in (expected, got))
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
        return float("inf")
    largest = float(np.abs(a[finite]).max(initial=0.0))
    apart = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return apart / largest if largest else (float("inf") if apart else 0.0)


def lookalike(
    divergence: Divergence,
    masks: Mapping[tuple[int, str], npt.NDArray[np.bool_]],
    seen: Mapping[tuple[int, str], npt.NDArray[np.bool_]],
) -> str:
    """Return whose mask in the model the framework's at a divergence is, "of step 3" or "of 'drop'"; "" for nobody's.

    Args:
        divergence: one of what "mask" or "shape".
        masks: the framework's masks by step and layer.
        seen: the model's.
    """
    if divergence.what not in ("mask", "shape") or (divergence.step, divergence.layer) not in masks:
        return ""
    mask = masks[divergence.step, divergence.layer]
    if mask.size < _TELLING or mask.all() or not mask.any():
        return ""
    for (step, layer), other in seen.items():
        if (step, layer) != (divergence.step, divergence.layer) and np.array_equal(mask, other):
            if layer == divergence.layer:
                return f"of step {step}"
            return f"of {layer!r}" + ("" if step == divergence.step else f" in step {step}")
    return ""
