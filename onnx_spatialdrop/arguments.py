"""Checks of arguments at the door: each returns the argument as a plain value, or says which argument is wrong.

What is of the wrong kind is a TypeError, what is out of range a SpecError, which is a ValueError. It knows no models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from onnx_spatialdrop.errors import SpecError

__all__ = [
    "choice",
    "factor",
    "flag",
    "fraction",
    "instance",
    "integer",
    "integers",
    "noise_shape",
    "number",
    "path",
    "seed",
    "string",
    "strings",
]

T = TypeVar("T")

_SEED_MIN: Final = -(2**63)
_SEED_MAX: Final = 2**64 - 1


def flag(value: object, name: str) -> bool:
    """Return a truth value; numbers, strings and None are none."""
    plain = _unboxed(value)
    if not isinstance(plain, bool):
        raise TypeError(f"{name} must be True or False, not {_kind(value)}")
    return plain


def fraction(value: object, name: str) -> float:
    """Return a number in [0, 1], of any numeric type but bool."""
    real = _real(value, name, "a number in [0, 1]")
    if not 0 <= real <= 1:
        raise SpecError(f"{name} is {_said(real)}; it must lie in [0, 1]")
    return float(real)


def factor(value: object, name: str) -> float:
    """Return a finite number, 0 or more, of any numeric type but bool."""
    real = number(value, name)
    if not (real >= 0 and math.isfinite(real)):
        raise SpecError(f"{name} is {_said(real)}; it must be finite, and 0 or more")
    return real


def number(value: object, name: str) -> float:
    """Return a number of any numeric type but bool; NaN and infinity are numbers."""
    try:
        return float(_real(value, name, "a number"))
    except OverflowError:
        raise SpecError(f"{name} is {_said(value)}; it must fit in a float") from None


def integer(value: object, name: str, low: int | None = None, high: int | None = None) -> int:
    """Return a whole number in [low, high], of any numeric type but bool: 2, numpy.int64(2) and 2.0 are the same."""
    real = _real(value, name, "a whole number")
    try:
        whole = int(real)
    except (OverflowError, ValueError):  # infinity, NaN
        whole = None
    if whole is None or whole != real:
        raise SpecError(f"{name} is {_said(real)}; it must be a whole number")
    if (low is not None and whole < low) or (high is not None and whole > high):
        allowed = f"{low} or more" if high is None else f"{high} or less" if low is None else f"in [{low}, {high}]"
        raise SpecError(f"{name} is {_said(whole)}; it must be {allowed}")
    return whole


def seed(value: object, name: str) -> int:
    """Return a whole number that fits in 64 bits, signed or unsigned."""
    whole = integer(value, name)
    if not _SEED_MIN <= whole <= _SEED_MAX:
        raise SpecError(f"{name} is {_said(whole)}; it must fit in 64 bits, [-2**63, 2**64)")
    return whole


def integers(value: object, name: str) -> tuple[int, ...]:
    """Return several whole numbers; a single one counts as a sequence of one."""
    if isinstance(_unboxed(value), Real):
        return (integer(value, name),)
    return tuple(integer(entry, f"{name}[{index}]") for index, entry in enumerate(_several(value, name, "numbers")))


def noise_shape(value: object, name: str) -> tuple[int | None, ...]:
    """Return a noise shape as Keras takes it: whole numbers from 1 on, and None."""
    entries = enumerate(_several(value, name, "numbers and None"))
    return tuple(None if entry is None else integer(entry, f"{name}[{index}]", 1) for index, entry in entries)


def string(value: object, name: str) -> str:
    """Return a str."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {_kind(value)}")
    return str(value)


def strings(value: object, name: str) -> list[str]:
    """Return several strings; a single one counts as a list of one."""
    if isinstance(value, str):
        return [str(value)]
    return [string(entry, f"{name}[{index}]") for index, entry in enumerate(_several(value, name, "str"))]


def choice(value: object, name: str, allowed: Sequence[str], error: type[Exception] = SpecError) -> str:
    """Return one of the strings ``allowed``; ``error`` is raised for another string."""
    chosen = string(value, name)
    if chosen not in allowed:
        raise error(f"{name} is {_said(chosen)}; allowed: {', '.join(allowed)}")
    return chosen


def path(value: object, name: str) -> Path:
    """Return a path; bytes and numbers of open files are none."""
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str):
        raise TypeError(f"{name} must be a path, a str or an os.PathLike of str, not {_kind(value)}")
    if not given:
        raise SpecError(f"{name} is empty; it must be the path of a file")
    if "\0" in given:
        raise SpecError(f"{name} is {_said(given)}; a path holds no null character")
    return Path(given)


def instance(value: object, name: str, kind: type[T], said: str) -> T:
    """Return an object of a class, which the error calls ``said``."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {said}, not {_kind(value)}")
    return value


def _several(value: object, name: str, what: str) -> Iterable[Any]:
    flat = getattr(value, "ndim", 1) == 1
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) or not flat:
        raise TypeError(f"{name} must be a sequence of {what}, not {_kind(value)}")
    return value


def _real(value: object, name: str, what: str) -> Any:
    plain = _unboxed(value)
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise TypeError(f"{name} must be {what}, not {_kind(value)}")
    return plain


def _unboxed(value: object) -> object:
    """Return what a NumPy scalar, or an array without dimensions, holds."""
    return (
        value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim) else value
    )


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _said(value: object) -> str:
    """Return how messages show a value: as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
