"""The operator in NumPy: what every kernel and every expansion is compared with, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import dialects, spec, stratified

__all__ = ["dropout_mask", "spatial_dropout"]


def dropout_mask(
    shape: Sequence[int],
    axes: Sequence[int],
    ratio: float,
    seed: int,
    step: npt.ArrayLike,
    *,
    rng: str = "philox",
    strata: int = 1,
    dtype: npt.DTypeLike = np.float32,
    where: str = "SpatialDropout",
) -> npt.NDArray[np.bool_]:
    """Return the mask of one draw: True where an entry is kept.

    Args:
        shape: the shape of X, rank 1 to 16.
        axes: the axes along which one entry is shared; negatives count from the end.
        ratio: fraction dropped, in [0, 1].
        seed: 64-bit key, in [-2**63, 2**64).
        step: int64, one element, or one for each index of dim 0; 0 or more.
        rng: the generator, one of spec.RNGS.
        strata: over how many steps the draws are balanced, one of stratified.STRATA.
        dtype: the type of X, which the masks of keras_tf and keras_tf_xla depend on.
        where: who asks, for error messages.

    Returns:
        bool, ``shape`` with ``axes`` set to 1.

    Raises:
        SpecError: an argument outside those ranges, or a type that ``rng`` draws no masks for.
    """
    shape = arguments.integers(shape, "shape")
    axes, ratio, seed = _plain(axes, ratio, seed)
    rng, strata = arguments.choice(rng, "rng", spec.RNGS), arguments.integer(strata, "strata")
    attributes = spec.Attributes(axes, ratio, seed, rng=rng, strata=strata, where=where)
    out_shape = spec.mask_shape(shape, axes, where)
    steps = _checked_steps(step, shape, out_shape, where)
    if steps.size == 1 and steps[0] < 0:
        raise SpecError(f"{where}: step is {steps[0]}; a fresh draw needs a session that counts, so give 0 or more")
    row = math.prod(out_shape) // max(steps.size, 1)
    kind = _dtype(dtype)
    limit = attributes.threshold(kind)
    kept = stratified.kept_rows(attributes.seed, steps, row, limit, strata=strata, rng=rng, dtype=kind)
    return kept.reshape(out_shape)


def _plain(axes: Sequence[int], ratio: float, seed: int) -> tuple[tuple[int, ...], float, int]:
    return arguments.integers(axes, "axes"), arguments.fraction(ratio, "ratio"), arguments.seed(seed, "seed")


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        return np.dtype(dtype)
    except Exception as error:  # NumPy has many for what is no type
        raise TypeError(f"dtype must be the NumPy type of X, one of {', '.join(spec.DTYPES)}") from error


def _checked_steps(
    step: npt.ArrayLike, shape: Sequence[int], masked: Sequence[int], where: str
) -> npt.NDArray[np.int64]:
    try:
        steps = np.asarray(step)
    except (ValueError, TypeError) as error:
        raise SpecError(f"{where}: step is no array: {error}") from error
    if steps.size and steps.dtype.kind not in "iu":
        raise SpecError(f"{where}: step has type {steps.dtype}; it must be int64")
    steps = steps.astype(np.int64).reshape(-1)
    spec.check_step(steps.tolist(), masked, int(shape[0]), where)
    return steps


def spatial_dropout(
    x: npt.NDArray[Any],
    axes: Sequence[int],
    ratio: float,
    seed: int,
    step: npt.ArrayLike = 0,
    training_mode: bool = True,
    scale: float = 0.0,
    *,
    rng: str = "philox",
    strata: int = 1,
    where: str = "SpatialDropout",
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Drop whole slices of ``x``: the operator's definition, executable.

    Args:
        x: float16, bfloat16, float32 or float64; rank 1 to 16.
        axes: the axes along which one mask entry is shared; ``[2, 3]`` drops the feature maps of NCHW.
        ratio: fraction dropped, in [0, 1].
        seed: 64-bit key, in [-2**63, 2**64).
        step: int64, one element, or one for each index of dim 0; 0 or more.
        training_mode: False returns a copy of ``x`` and a mask of True; ``step`` is checked all the same.
        scale: what kept values are multiplied by; 0 stands for 1 / (1 - ratio).
        rng: the generator, one of spec.RNGS.
        strata: over how many steps the draws are balanced, one of stratified.STRATA.
        where: who asks, for error messages.

    Returns:
        ``y``, of the type and shape of ``x``: kept values times the scale, rounded once, and +0 elsewhere (also
        where ``x`` is Inf or NaN); and ``mask``, bool, the shape of ``x`` with ``axes`` set to 1.

    Raises:
        SpecError: an argument outside those ranges, or a type that is unsupported, or that ``rng`` draws no masks for.
    """
    arguments.instance(x, "x", np.ndarray, "a numpy.ndarray")
    axes, ratio, seed = _plain(axes, ratio, seed)
    rng, scale = arguments.choice(rng, "rng", spec.RNGS), arguments.number(scale, "scale")
    strata = arguments.integer(strata, "strata")
    training_mode = arguments.flag(training_mode, "training_mode")
    if x.dtype not in spec.DTYPES.values():
        raise SpecError(f"{where}: X has type {x.dtype}; allowed: {', '.join(spec.DTYPES)}")
    if not training_mode:
        attributes = spec.Attributes(axes, ratio, seed, scale, rng, strata, where)
        dialects.word_test(rng, x.dtype, where)
        out_shape = spec.mask_shape(x.shape, attributes.axes, where)
        _checked_steps(step, x.shape, out_shape, where)
        return x.copy(), np.ones(out_shape, np.bool_)
    mask = dropout_mask(x.shape, axes, ratio, seed, step, rng=rng, strata=strata, dtype=x.dtype, where=where)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaled = x * spec.kept_scale(ratio, scale, x.dtype)
    zero = np.zeros((), x.dtype)
    return np.where(mask, scaled, zero).astype(x.dtype, copy=False), mask
