"""What the values of ``rng`` stand for: for each a generator of words, and one integer test that a word passes or not.

The default is the operator's own; the others draw the masks that a framework's layer draws. This table is the only
one in Python: the reference, the function bodies, the Python kernel and the exporters read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import philox, threefry

__all__ = [
    "DIALECTS",
    "KERAS_TF_KEY",
    "KERAS_TF_MODULUS",
    "RNGS",
    "Dialect",
    "WordTest",
    "Words",
    "kept",
    "keras_tf_words",
    "ratio_for",
    "threshold",
    "word_test",
    "words",
]

#: The generators of words: Philox keyed as the operator does, as Keras does on TensorFlow, and Threefry as JAX does.
Words = Literal["philox", "keras_tf", "threefry"]

#: Keras on TensorFlow takes seed and counter modulo this number, and TensorFlow scrambles the two under this key.
KERAS_TF_MODULUS: Final = 2**31 - 2
KERAS_TF_KEY: Final = (0x3EC8F720, 0x02461E29)

_TYPES: Final = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class WordTest:
    """The integer that is compared: ``(word >> shift) & (2**bits - 1)``."""

    shift: int
    bits: int


@dataclass(frozen=True)
class Dialect:
    """One value of ``rng``.

    Attributes:
        words: the generator of words.
        tests: the test for each type of X, by NumPy's name of the type; a type that is missing is refused.
        keeps_below: kept iff the integer lies below the threshold; else iff it does not.
        own_type: the ratio is rounded to the type of X before the threshold is taken.
        period: seeds, and steps, that are equal modulo this number draw the same.
    """

    words: Words
    tests: Mapping[str, WordTest]
    keeps_below: bool = False
    own_type: bool = False
    period: int = 2**64


#: The values of ``rng``, the default first.
DIALECTS: Final[Mapping[str, Dialect]] = {
    "philox": Dialect("philox", dict.fromkeys(_TYPES, WordTest(8, 24))),
    "keras_tf": Dialect(
        "keras_tf",
        {"float16": WordTest(0, 10), "bfloat16": WordTest(0, 7), "float32": WordTest(0, 23)},
        own_type=True,
        period=KERAS_TF_MODULUS,
    ),
    "keras_tf_xla": Dialect(
        "keras_tf",
        {"float16": WordTest(0, 10), "bfloat16": WordTest(9, 23), "float32": WordTest(9, 23)},
        own_type=True,
        period=KERAS_TF_MODULUS,
    ),
    "keras_jax": Dialect("threefry", dict.fromkeys(_TYPES, WordTest(9, 23)), keeps_below=True, period=2**32),
}
RNGS: Final = tuple(DIALECTS)


def word_test(rng: str, dtype: np.dtype[Any], where: str = "SpatialDropout") -> WordTest:
    """Return the test of the dialect ``rng`` for an X of type ``dtype``.

    Raises:
        SpecError: the dialect has none for that type.
    """
    tests = DIALECTS[rng].tests
    if dtype.name not in tests:
        raise SpecError(
            f"{where}: rng {rng!r} draws no masks for X of type {dtype.name}; allowed with it: {', '.join(tests)}; "
            "cast X to one of them, or use rng 'philox'"
        )
    return tests[dtype.name]


def threshold(
    ratio: float, rng: str = "philox", dtype: npt.DTypeLike = np.float32, where: str = "SpatialDropout"
) -> int:
    """Return the integer T in [0, 2**bits] that the test compares with, from the attribute ``ratio``, a float32.

    T = ceil(r * 2**bits), where r is float32(ratio), rounded to ``dtype`` for keras_tf and keras_tf_xla; for
    keras_jax it is float32(1 - ratio), the difference taken in double.

    Raises:
        SpecError: the dialect has no test for ``dtype``.
    """
    return _threshold(float(np.float32(ratio)), rng, np.dtype(dtype), where)


def _threshold(ratio: float, rng: str, dtype: np.dtype[Any], where: str) -> int:
    dialect, bits = DIALECTS[rng], word_test(rng, dtype, where).bits
    share = np.float32(1.0 - ratio if dialect.keeps_below else ratio)
    rounded: float = share.astype(dtype).item() if dialect.own_type else share.item()
    return math.ceil(rounded * (1 << bits))


def ratio_for(rate: float, rng: str, dtype: npt.DTypeLike, where: str = "SpatialDropout") -> float:
    """Return the ``ratio`` to store for a layer's ``rate``, a double, so that the threshold is the framework's.

    It is float32(rate), or else one of the two float32 beside it: float32(1 - rate), which JAX compares with, need not
    be float32(1 - float32(rate)). Thresholds grow with the rate in steps no finer than the float32 numbers around
    it, so one of the three always fits.

    Raises:
        SpecError: a rate outside [0, 1], or the dialect has no test for ``dtype``.
    """
    if not 0.0 <= rate <= 1.0:
        raise SpecError(f"{where}: rate is {rate}; it must lie in [0, 1]")
    near = np.float32(rate)
    wanted = _threshold(rate, rng, np.dtype(dtype), where)
    beside = (np.nextafter(near, np.float32(bound)) for bound in (0, 1))
    found = next(ratio for ratio in (near, *beside) if threshold(float(ratio), rng, dtype, where) == wanted)
    return float(found)


def keras_tf_words(seed: int, steps: npt.ArrayLike, count: int, start: int = 0) -> npt.NDArray[np.uint32]:
    """Return ``count`` consecutive words of each stream (seed, step), as Keras draws them on TensorFlow.

    Both numbers are taken modulo 2**31 - 2 (the remainder is not negative). Philox under KERAS_TF_KEY makes four
    words of them: the key, and the upper half of the counter, under which the words are then drawn.

    Args:
        seed: an integer in [-2**63, 2**63).
        steps: int64 values of shape (R,), one stream each.
        count: words a stream, 0 or more.
        start: the first word's index in its stream, 0 or more.

    Returns:
        uint32 words, shape (R, count).
    """
    rest = np.asarray(steps, np.int64).reshape(-1) % KERAS_TF_MODULUS
    seeds = np.zeros((rest.size, 4), np.int64)
    seeds[:, 0], seeds[:, 2] = seed % KERAS_TF_MODULUS, rest
    mixed = philox.philox4x32(seeds, KERAS_TF_KEY)
    first, last = start // 4, (start + count + 3) // 4
    counter = np.empty((rest.size, last - first, 4), np.uint64)
    counter[:] = philox.block_counters(first, last - first)
    counter[..., 2:] = mixed[:, None, 2:]
    drawn = philox.philox4x32(counter, mixed[:, None, :2]).reshape(rest.size, 4 * (last - first))
    return drawn[:, start - 4 * first :][:, :count]


_WORDS: Final[dict[Words, Callable[[int, npt.ArrayLike, int, int], npt.NDArray[np.uint32]]]] = {
    "philox": philox.words,
    "keras_tf": keras_tf_words,
    "threefry": threefry.words,
}


def words(rng: str, seed: int, steps: npt.ArrayLike, count: int, start: int = 0) -> npt.NDArray[np.uint32]:
    """Return ``count`` consecutive words of each stream (seed, step) of a dialect: uint32, shape (R, count).

    Args:
        rng: the dialect.
        seed: the attribute ``seed``, in [-2**63, 2**63).
        steps: int64 values of shape (R,), one stream each.
        count: words a stream, 0 or more.
        start: the first word's index in its stream, 0 or more.
    """
    return _WORDS[DIALECTS[rng].words](seed, steps, count, start)


def kept(drawn: npt.NDArray[np.uint32], rng: str, dtype: npt.DTypeLike, limit: int) -> npt.NDArray[np.bool_]:
    """Return which words keep their entries in an X of type ``dtype``, given the threshold; the shape of ``drawn``.

    Raises:
        SpecError: the dialect has no test for ``dtype``.
    """
    test = word_test(rng, np.dtype(dtype))
    number = (drawn >> np.uint32(test.shift)) & np.uint32((1 << test.bits) - 1)
    return np.asarray(number < np.uint32(limit) if DIALECTS[rng].keeps_below else number >= np.uint32(limit))
