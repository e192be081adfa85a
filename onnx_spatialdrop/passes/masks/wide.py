"""Philox4x32-10 on uint64, for all blocks of all nodes side by side: five to eight nodes a round.

S holds the counter words 0 and 2, C the words 1 and 3, each of shape [rows, 2, blocks]. A round multiplies S and hands
each product to the other lane. Both at once is a matrix product, whose sums have one term that is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import philox, stratified
from onnx_spatialdrop.passes.masks.builder import MaskBuilder

__all__ = ["FIRST_MUL", "Wide", "key_table"]

#: ONNX Runtime multiplies uint64 from the version on that reads this opset (1.21). Its matrix products always did, and
#: cost more.
FIRST_MUL: Final = 22
#: Up to so many entries a sample a matrix product is faster than Gather, Mul and two Casts, as measured.
MOST_BY_MATRIX: Final = 1 << 10

_LOW: Final = 0xFFFFFFFF
_FRESH_BITS: Final = 62


class Wide:
    """The generator's arithmetic in 64 bits.

    Args:
        opset: the version of ONNX's default domain.
        entries: how many a sample has, 0 where nobody knows.
    """

    def __init__(self, opset: int, entries: int) -> None:
        self._casts = opset < FIRST_MUL
        self._by_matrix = self._casts and 0 < entries <= MOST_BY_MATRIX

    def draws(self, build: MaskBuilder, steps: ir.Value, fed: ir.Value | None) -> ir.Value:
        """Return the steps, int64, where negative ones have become fresh draws.

        Args:
            build: where the nodes go.
            steps: the steps.
            fed: bool, [1], made of what is fed, so that nobody takes a draw for a constant; None where no step is
                negative.
        """
        if fed is None:
            return steps
        ones, half = (build.constant(np.full(size, value, np.float32)) for size, value in ((_FRESH_BITS, 1), ((), 0.5)))
        coins = build.add("Where", fed, ones, half, role="coins")
        heads = build.outputs("Dropout", [coins, half, build.constant(np.array(True))], ["heads_f", "heads"])[1]
        powers = build.constant(np.array([2**n for n in range(_FRESH_BITS)], np.int64))
        terms = build.add("Where", heads, powers, build.ints(0), role="terms")
        nonce = build.add("ReduceSum", terms, role="nonce", keepdims=1)
        negative = build.add("Less", steps, build.ints(0), role="negative")
        return build.add("Where", negative, nonce, steps, role="draws")

    def start(self, build: MaskBuilder, blocks: ir.Value, draws: ir.Value) -> list[ir.Value]:
        """Return the state before the first round, S and C.

        Args:
            build: where the nodes go.
            blocks: int64 numbers of blocks, [blocks] or [rows, 1, blocks].
            draws: what ``draws`` returned, one a row.
        """
        rows = build.add("Reshape", draws, build.ints(-1, 1, 1), role="draws_of_rows")
        lane = build.constant(np.array([[True], [False]]))
        both = build.add("Where", lane, blocks, rows, role="counter_i")
        counter = build.add("Cast", both, role="counter", to=ir.DataType.UINT64)
        low = build.add("BitwiseAnd", counter, self._number(build, _LOW), role="s_0")
        return [low, build.add("BitShift", counter, self._number(build, 32), role="c_0", direction="RIGHT")]

    def key_table(self, seeds: Sequence[int]) -> npt.NDArray[Any]:
        """Return the keys that the rounds of each node xor, [10, 2, nodes]."""
        return key_table(seeds)

    def round(self, build: MaskBuilder, state: list[ir.Value], key: ir.Value, number: int) -> list[ir.Value]:
        """Return the state after one round more."""
        m0, m1 = philox.MULTIPLIERS
        s, c = state
        if self._by_matrix:
            matrix = build.constant(np.array([[0, m1], [m0, 0]], np.uint64))
            product = build.add("MatMul", matrix, s, role=f"p_{number}")
        else:
            crossed = build.add("Gather", s, build.ints(1, 0), role=f"x_{number}", axis=1)
            factors = np.array([[m1], [m0]], np.uint64)
            if self._casts:  # int64 wraps to the same bits
                narrow = build.add("Cast", crossed, role=f"i_{number}", to=ir.DataType.INT64)
                wrapped = build.add("Mul", narrow, build.constant(factors.astype(np.int64)), role=f"q_{number}")
                product = build.add("Cast", wrapped, role=f"p_{number}", to=ir.DataType.UINT64)
            else:
                product = build.add("Mul", crossed, build.constant(factors), role=f"p_{number}")
        high = build.add("BitShift", product, self._number(build, 32), role=f"h_{number}", direction="RIGHT")
        mixed = build.add("BitwiseXor", high, c, role=f"m_{number}")
        new_s = build.add("BitwiseXor", mixed, key, role=f"s_{number + 1}")
        return [new_s, build.add("BitwiseAnd", product, self._number(build, _LOW), role=f"c_{number + 1}")]

    def with_cycles(self, build: MaskBuilder, draws: ir.Value, strata: int) -> tuple[ir.Value, ir.Value]:
        """Return the draws, followed by the numbers that their cycles draw by, and the draws' places in their cycles.

        The places are int64 of shape [rows, 1, 1].
        """
        cycles = build.add("Div", draws, build.ints(strata), role="cycles")
        begins = build.add("Mul", cycles, build.ints(strata), role="begins")
        places = build.add("Sub", draws, begins, role="places")
        marked = build.add("BitwiseOr", cycles, build.ints(int(stratified.CYCLES)), role="marked_cycles")
        both = build.add("Concat", draws, marked, role="draws_and_cycles", axis=0)
        return both, build.add("Reshape", places, build.ints(-1, 1, 1), role="places_of_rows")

    def limits(self, thresholds: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return what words are compared with: w >> 8 < T if w < T << 8."""
        return thresholds << 8

    def dropped(
        self, build: MaskBuilder, state: list[ir.Value], limit: ir.Value, balanced: tuple[int, ir.Value] | None
    ) -> ir.Value:
        """Return which entries are dropped, bool [rows, 4, blocks], by the words 0, 2, 1 and 3 of the blocks.

        A word w drops its entry if w >> 8 < T; one of rank r in a cycle if r 2**32 + w < D << 8.

        Args:
            build: where the nodes go.
            state: what the last round left.
            limit: what ``limits`` made of the thresholds T or D.
            balanced: ``strata`` and the places in the cycles, where the words of the cycles follow those of the draws.
        """
        words = build.add("Concat", *state, role="words_u", axis=1)
        numbers = build.add("Cast", words, role="words", to=ir.DataType.INT64)
        if balanced is not None:
            numbers = _ranked(build, numbers, *balanced)
        return build.add("Less", numbers, limit, role="dropped")

    def _number(self, build: MaskBuilder, number: int) -> ir.Value:
        return build.constant(np.array(number, np.uint64))


def _ranked(build: MaskBuilder, words: ir.Value, strata: int, places: ir.Value) -> ir.Value:
    """Return r 2**32 + w: an entry's word, and its rank in the cycle, (a place + c) mod strata, above it."""
    own, orders = build.outputs("Split", [words], ["own_words", "orders"], axis=0, num_outputs=2)
    period = build.ints(strata)
    kind = build.add("Mod", orders, build.ints(strata * (strata - 1)), role="kinds")
    a = build.add("Add", build.add("Div", kind, period, role="a_less_1"), build.ints(1), role="a")
    moved = build.add("Add", build.add("Mul", a, places, role="a_places"), kind, role="a_places_c")
    rank = build.add("Mod", moved, period, role="ranks")
    return build.add("Add", build.add("Mul", rank, build.ints(2**32), role="above"), own, role="ranked")


def key_table(seeds: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return the keys that the rounds of each node xor, [10, 2, nodes]."""
    words = [
        [
            [((seed >> 32 * word & _LOW) + n * step) & _LOW for seed in seeds]
            for word, step in enumerate(philox.KEY_STEPS)
        ]
        for n in range(philox.ROUNDS)
    ]
    return np.array(words, np.uint64)
