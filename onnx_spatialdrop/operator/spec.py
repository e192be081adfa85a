"""The definition of SpatialDropout: its name, its attributes and the arithmetic that they stand for.

Everything here is plain numbers; nodes, arrays and graphs are the business of the neighbouring modules.
docs/operator.md is the same definition in prose.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import stratified
from onnx_spatialdrop.operator.dialects import RNGS, threshold

__all__ = [
    "DOMAIN",
    "DTYPES",
    "HELPERS",
    "MAX_RANK",
    "OP_TYPE",
    "RNGS",
    "VERSION",
    "Attributes",
    "check_step",
    "explicit_scale",
    "fresh_step",
    "kept_scale",
    "mask_shape",
    "normalize_axes",
    "signed_seed",
    "threshold",
]

#: No dot in it: onnx2torch makes module names of domains, and PyTorch forbids dots there.
DOMAIN: Final = "onnx_spatialdrop"
OP_TYPE: Final = "SpatialDropout"
VERSION: Final = 1
MAX_RANK: Final = 16

#: The helper functions that bodies call, with the numbers of their inputs and outputs.
HELPERS: Final = {
    "AddWords": (2, 1),
    "TurnWord": (2, 1),
    "Threefry2x32": (4, 2),
}

#: The types T of X and Y, by the name that NumPy gives them.
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True)
class Attributes:
    """The attributes of one SpatialDropout node, checked.

    Attributes:
        axes: axes along which one mask entry is shared; negative ones count from the end; () is element-wise.
        ratio: fraction dropped, in [0, 1], held as the float32 that the node stores.
        seed: 64-bit key; any integer in [-2**63, 2**64) is accepted and held as int64 (two's complement).
        scale: what kept values are multiplied by, held as float32; 0 stands for 1 / (1 - ratio).
        rng: the generator of the mask, one of RNGS; operator/dialects.py says what each stands for.
        strata: over how many steps the draws are balanced, one of stratified.STRATA; 1, which balances nothing, unless
            ``rng`` is "philox".
        where: who asks, for error messages: "node 'drop1'".

    Raises:
        SpecError: a value outside those ranges.
    """

    axes: tuple[int, ...]
    ratio: float
    seed: int
    scale: float = 0.0
    rng: str = "philox"
    strata: int = 1
    where: str = "SpatialDropout"

    def __post_init__(self) -> None:
        ratio = float(np.float32(self.ratio))
        if not 0.0 <= ratio <= 1.0:
            raise SpecError(f"{self.where}: ratio is {self.ratio}; it must lie in [0, 1]")
        if self.rng not in RNGS:
            known = ", ".join(repr(name) for name in RNGS)
            raise SpecError(f"{self.where}: rng is {self.rng!r}; this version knows {known}")
        if self.strata not in stratified.STRATA:
            raise SpecError(f"{self.where}: strata is {self.strata}; it must be 1 or a prime number from 3 to 127")
        if self.strata != 1 and self.rng != RNGS[0]:
            raise SpecError(
                f"{self.where}: strata is {self.strata}, but rng {self.rng!r} draws as its framework "
                "does; use strata 1, or rng 'philox'"
            )
        if len(set(self.axes)) != len(self.axes):
            raise SpecError(f"{self.where}: axes {list(self.axes)} name an axis twice; name each once")
        if any(not -MAX_RANK <= axis < MAX_RANK for axis in self.axes):
            raise SpecError(f"{self.where}: axes {list(self.axes)} exceed the largest rank, {MAX_RANK}")
        object.__setattr__(self, "axes", tuple(operator.index(axis) for axis in self.axes))
        object.__setattr__(self, "ratio", ratio)
        object.__setattr__(self, "strata", int(self.strata))
        object.__setattr__(self, "seed", signed_seed(self.seed, self.where))
        with np.errstate(over="ignore"):
            object.__setattr__(self, "scale", float(np.float32(self.scale)))

    def threshold(self, dtype: npt.DTypeLike = np.float32) -> int:
        """Return the integer that decides what is dropped from an X of type ``dtype``, for stratified.kept_rows.

        Raises:
            SpecError: ``rng`` has no test for ``dtype``.
        """
        if self.strata != 1:
            return stratified.threshold(self.ratio, self.strata)
        return threshold(self.ratio, self.rng, dtype, self.where)


def signed_seed(seed: int, where: str = "SpatialDropout") -> int:
    """Return the int64 with the bits of ``seed``; ONNX's INT attribute is signed.

    Raises:
        SpecError: ``seed`` lies outside [-2**63, 2**64).
    """
    if not -(2**63) <= seed < 2**64:
        raise SpecError(f"{where}: seed is {seed}; it must fit in 64 bits, [-2**63, 2**64)")
    return (int(seed) + 2**63) % 2**64 - 2**63


def normalize_axes(axes: Sequence[int], rank: int, where: str = "SpatialDropout") -> tuple[int, ...]:
    """Return ``axes`` as sorted non-negative numbers for a tensor of ``rank`` dimensions.

    Raises:
        SpecError: the rank is not in [1, 16], or an axis is out of range or named twice.
    """
    if not 1 <= rank <= MAX_RANK:
        raise SpecError(f"{where}: X has rank {rank}; ranks 1 to {MAX_RANK} are allowed")
    for axis in axes:
        if not -rank <= axis < rank:
            raise SpecError(f"{where}: axis {axis} is out of range for rank {rank}; allowed: [{-rank}, {rank - 1}]")
    positive = sorted(int(axis) % rank for axis in axes)
    if len(set(positive)) != len(positive):
        raise SpecError(f"{where}: axes {list(axes)} name an axis of a rank-{rank} tensor twice; name each once")
    return tuple(positive)


def mask_shape(shape: Sequence[int], axes: Sequence[int], where: str = "SpatialDropout") -> tuple[int, ...]:
    """Return the shape of X with its ``axes`` set to 1. Raises SpecError as normalize_axes does."""
    shared = set(normalize_axes(axes, len(shape), where))
    return tuple(1 if axis in shared else int(dim) for axis, dim in enumerate(shape))


def check_step(step: Sequence[int], mask: Sequence[int], batch: int, where: str = "SpatialDropout") -> None:
    """Check the elements of ``step`` against a mask of shape ``mask`` and ``batch`` = size of X's dim 0.

    Raises:
        SpecError: neither 1 nor ``batch`` elements; one element per sample although axis 0 is shared (there is
            one row of mask entries and no way to share it out); or a negative element among several.
    """
    rows = len(step)
    if rows == 1:
        return
    if rows != batch:
        raise SpecError(f"{where}: step has {rows} elements; allowed: 1, or {batch} (the size of X's dim 0)")
    if mask[0] != batch:
        raise SpecError(f"{where}: step has {rows} elements but axis 0 is shared; give it one element")
    for index, value in enumerate(step):
        if value < 0:
            raise SpecError(
                f"{where}: step[{index}] is {value}; in a step of several elements none may be negative "
                "(only a single step asks for a fresh draw)"
            )


def fresh_step(step: int, count: int, strata: int = 1) -> int:
    """Return the draw that a single negative ``step`` stands for after ``count`` fresh draws of its node.

    (count + (-1 - step) * S) mod 2**63, where S is the largest multiple of ``strata`` up to 2**20: -1, -2, ... are
    sequences of their own, each of a million draws, so that nodes that draw from one stream, told apart by their steps
    alone, do not draw the same. They begin where a cycle of ``strata`` steps begins.
    """
    return (count + (-1 - step) * (2**20 // strata * strata)) % 2**63


def kept_scale(ratio: float, scale: float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return what kept values are multiplied by, as a 0-d array of ``dtype``.

    float32(scale) unless it is 0, else 1 / (1 - float32(ratio)) worked out in double; rounded to ``dtype`` once.
    With ratio 1 nothing is kept and the value, 1, is never used.
    """
    with np.errstate(over="ignore"):
        scale = float(np.float32(scale))
    if scale == 0.0:
        ratio = float(np.float32(ratio))
        scale = 1.0 if ratio == 1.0 else 1.0 / (1.0 - ratio)
    with np.errstate(over="ignore"):
        return np.asarray(scale, np.float64).astype(dtype)


def explicit_scale(rate: float, dtype: np.dtype[Any] | None = None) -> float:
    """Return the ``scale`` to store for a ``rate`` given in double: 1 / (1 - rate), as a float32's value.

    It is rounded to ``dtype`` first where that is known and narrower than float32. The attribute ``ratio`` alone
    cannot give this number: rounding the rate to float32 moves 1 / (1 - rate) by an ulp for about 4 in 10 rates.
    """
    exact = 1.0 if rate == 1.0 else 1.0 / (1.0 - rate)
    with np.errstate(over="ignore"):
        if dtype is not None and dtype.itemsize < 4:
            exact = float(np.asarray(exact, np.float64).astype(dtype))
        return float(np.float32(exact))
