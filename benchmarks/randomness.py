"""Statistical tests of the generators; randomness_page.py makes docs/statistics.md of them, and a test runs few.

Every test counts something whose distribution is known exactly or asymptotically if words are independent and uniform.
Counts are of disjoint pairs, so that a chi-square is one. All p-values of all generators are one family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from scipy import stats

from onnx_spatialdrop.operator import dialects, philox, stratified, threefry

ALPHA = 0.01
MANY, FEW = 10**6, 2**15

Array = np.ndarray[Any, Any]
#: Words of (seeds, steps, entries), arrays that are broadcast against each other.
Field = Callable[[Array, Array, Array], Array]


def _halves(number: Array) -> tuple[Array, Array]:
    return number & np.uint64(0xFFFFFFFF), number >> np.uint64(32)


def _u64(*numbers: Array) -> list[Array]:
    return np.broadcast_arrays(*(np.asarray(number).astype(np.uint64) for number in numbers))


def _pick(block: Array, entries: Array) -> Array:
    which = (entries % np.uint64(4)).astype(np.int64)[..., None]
    return np.take_along_axis(block, which, -1)[..., 0]


def philox_words(seeds: Array, steps: Array, entries: Array) -> Array:
    seeds, steps, entries = _u64(seeds, steps, entries)
    counter = np.stack([*_halves(entries // np.uint64(4)), *_halves(steps)], -1)
    return _pick(philox.philox4x32(counter, np.stack(_halves(seeds), -1)), entries)


def keras_tf_words(seeds: Array, steps: Array, entries: Array) -> Array:
    modulus = np.uint64(2**31 - 2)
    seeds, steps, entries = _u64(seeds, steps, entries)
    counter = np.stack([*_halves(seeds % modulus), *_halves(steps % modulus)], -1)
    mixed = philox.philox4x32(counter, np.array(dialects.KERAS_TF_KEY))
    counter = np.concatenate([np.stack(_halves(entries // np.uint64(4)), -1), mixed[..., 2:].astype(np.uint64)], -1)
    return _pick(philox.philox4x32(counter, mixed[..., :2]), entries)


def keras_jax_words(seeds: Array, steps: Array, entries: Array) -> Array:
    seeds, steps, entries = _u64(seeds, steps, entries)
    low, high = _halves(entries)
    drawn = threefry.threefry2x32(np.stack([high, low], -1), np.stack([_halves(seeds)[0], _halves(steps)[0]], -1))
    return drawn[..., 0] ^ drawn[..., 1]


def balanced_words(seeds: Array, steps: Array, entries: Array, strata: int = 31) -> Array:
    """Return rank and word as one number, cut off at 32 bits: what a mask with ``strata`` compares."""
    seeds, steps, entries = _u64(seeds, steps, entries)
    cycles = steps // np.uint64(strata) + np.uint64(2**63)
    order = philox_words(seeds, cycles, entries).astype(np.uint64) % np.uint64(strata * (strata - 1))
    place, p = steps % np.uint64(strata), np.uint64(strata)
    rank = ((np.uint64(1) + order // p) * place + order % p) % p
    number = (rank << np.uint64(24)) + (philox_words(seeds, steps, entries).astype(np.uint64) >> np.uint64(8))
    return ((number << np.uint64(8)) // p).astype(np.uint32)


@dataclass(frozen=True)
class Generator:
    """What is tested: the bits of seeds and steps that count, and how far apart steps are independent."""

    field: Field
    seed_bits: int = 64
    step_bits: int = 63
    cycle: int = 1


GENERATORS = {
    "philox": Generator(philox_words),
    "philox, strata 31": Generator(balanced_words, cycle=31),
    "keras_tf, keras_tf_xla": Generator(keras_tf_words, 31, 31),
    "keras_jax": Generator(keras_jax_words, 32, 32),
}


def _uniform(words: Array, bits: int = 8, shift: int = 24) -> float:
    counts = np.bincount((words.reshape(-1) >> np.uint32(shift)) & np.uint32(2**bits - 1), minlength=2**bits)
    return float(stats.chisquare(counts).pvalue)


def _independent(first: Array, second: Array) -> float:
    """Return the p-value of the pairs of two words' first four bits: 256 cells, all equally likely."""
    cells = ((first >> np.uint32(28)) << np.uint32(4)) | (second >> np.uint32(28))
    return float(stats.chisquare(np.bincount(cells.reshape(-1), minlength=256)).pvalue)


def _bits(words: Array) -> Iterator[tuple[str, float]]:
    for bit in range(8, 32):
        ones = int(((words >> np.uint32(bit)) & np.uint32(1)).sum())
        yield f"bit {bit}", float(2 * stats.norm.sf(abs(ones - words.size / 2) / np.sqrt(words.size / 4)))


def p_values(of: Generator, many: int = MANY, few: int = FEW) -> dict[str, float]:
    """Return a p-value a test."""
    zero, counting, half = np.zeros(1), np.arange(many), np.arange(0, many, 2)
    steps = counting * of.cycle
    along = {
        "seeds": of.field(counting, zero, zero),
        "steps": of.field(zero + 7, steps, zero),
        "entries": of.field(zero + 7, zero + 3, counting),
    }
    found: dict[str, float] = {}
    for name, words in along.items():
        found[f"{name}: first byte"], found[f"{name}: second byte"] = _uniform(words), _uniform(words, 8, 16)
        found[f"{name}: neighbours"] = _independent(words[0::2], words[1::2])
        for lag in (4, 64):
            rows = words[: many // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
            found[f"{name}: {lag} apart"] = _independent(rows[:, 0], rows[:, 1])
        found |= {f"{name}: {bit}": p for bit, p in _bits(words)}
    found["seed and step exchanged"] = _independent(
        of.field(half, (half + 1) * of.cycle, zero), of.field(half + 1, half * of.cycle, zero)
    )
    base = np.arange(few) * 3 + 10**6
    for bit in range(of.seed_bits):
        other = base.astype(np.uint64) ^ np.uint64(1 << bit)
        found[f"seeds that differ in bit {bit}"] = _independent(
            of.field(base, zero + 3, zero), of.field(other, zero + 3, zero)
        )
    for bit in range(of.step_bits if of.cycle == 1 else 0):
        other = base.astype(np.uint64) ^ np.uint64(1 << bit)
        found[f"steps that differ in bit {bit}"] = _independent(
            of.field(zero + 3, base, zero), of.field(zero + 3, other, zero)
        )
    return found


def holm(p: list[float]) -> list[float]:
    """Return p-values adjusted so that the chance of one false alarm in the whole family is bounded (Holm 1979)."""
    order, adjusted, worst = np.argsort(p), [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = worst
    return adjusted


def cycles_are_balanced() -> str:
    """Count drops over whole cycles."""
    worst = 0.0
    for ratio in (0.1, 0.3, 0.5):
        limit = stratified.threshold(ratio, 31)
        kept = np.stack([stratified.kept_rows(7, range(31 * c, 31 * c + 31), 4096, limit, strata=31) for c in range(8)])
        worst = max(worst, float(np.abs((~kept).sum(axis=1) - 31 * ratio).max()))
    return f"In 8 cycles of 31 steps and 4,096 entries, the drops of an entry are at most {worst:.2f} from 31 ratio."


def weakened(many: int = MANY, few: int = FEW) -> dict[str, Callable[[], dict[str, float]]]:
    """Return generators of too few rounds, which have to fail."""

    def with_rounds(module: Any, rounds: int, name: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            with mock.patch.object(module, "ROUNDS", rounds):
                return p_values(GENERATORS[name], many, few)

        return run

    faults = {f"philox, {rounds} of 10 rounds": with_rounds(philox, rounds, "philox") for rounds in (1, 2, 3, 4)}
    return faults | {f"keras_jax, {n} of 20 rounds": with_rounds(threefry, n, "keras_jax") for n in (2, 4, 8)}
