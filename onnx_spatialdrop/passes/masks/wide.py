"""Philox4x32-10 on uint64, for all blocks of all nodes side by side: six nodes a round.

S holds the counter words 0 and 2, C the words 1 and 3, each along its first axis. A round multiplies S and hands each
product to the other lane, so lanes swap places every round; constants that alternate with them save moving them back.
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

#: ONNX Runtime multiplies uint64 from the version on that reads this opset (1.21). Below, int64 wraps to the same bits.
FIRST_MUL: Final = 22

_LOW: Final = 0xFFFFFFFF
_FRESH_BITS: Final = 62


class Wide:
    """The generator's arithmetic in 64 bits.

    Args:
        opset: the version of ONNX's default domain.
    """

    def __init__(self, opset: int) -> None:
        self._casts = opset < FIRST_MUL

    def coins(self, build: MaskBuilder, fresh: ir.Value) -> ir.Value:
        """Return what a fresh draw is made of; ``fresh`` is a float, [1], that depends on what is fed.

        It stands outside of every If: random nodes inside one share a draw.
        """
        spread = build.add("Expand", fresh, build.ints(_FRESH_BITS), role="coins")
        half, yes = build.constant(np.float32(0.5)), build.constant(np.array(True))
        return build.outputs("Dropout", [spread, half, yes], ["heads_f", "heads"])[1]

    def draws(self, build: MaskBuilder, steps: ir.Value, negative: ir.Value | None, coins: ir.Value | None) -> ir.Value:
        """Return the steps, int64, where negative ones have become fresh draws."""
        if negative is not None and coins is not None:
            powers = build.constant(np.array([2**n for n in range(_FRESH_BITS)], np.int64))
            terms = build.add("Mul", build.add("Cast", coins, role="heads_i", to=7), powers, role="terms")
            nonce = build.add("ReduceSum", terms, role="nonce", keepdims=1)
            steps = build.add("Where", negative, nonce, steps, role="draws")
        return steps

    def start(self, build: MaskBuilder, blocks: ir.Value, draws: ir.Value, shape: ir.Value | None) -> list[ir.Value]:
        """Return the state before the first round, S and C of shape [2, 1, rows, blocks].

        Args:
            build: where the nodes go.
            blocks: int64 numbers of blocks.
            draws: what ``draws`` returned, one a row.
            shape: [1, 1, rows, blocks]; None where ``blocks`` has this shape.
        """
        wide = build.add("Cast", blocks, role="blocks_u", to=ir.DataType.UINT64)
        if shape is None:
            shape = build.add("Shape", wide, role="plane")
        else:
            wide = build.add("Expand", wide, shape, role="blocks_all")
        wide_draws = build.add("Cast", draws, role="draws_u", to=ir.DataType.UINT64)
        rows = build.add("Reshape", wide_draws, build.ints(1, 1, -1, 1), role="draws_of_rows")
        drawn = build.add("Expand", rows, shape, role="draws_all")
        counter = build.add("Concat", wide, drawn, role="counter", axis=0)
        low = build.add("BitwiseAnd", counter, self._number(build, _LOW), role="s_0")
        return [low, build.add("BitShift", counter, self._number(build, 32), role="c_0", direction="RIGHT")]

    def key_table(self, seeds: Sequence[int]) -> npt.NDArray[Any]:
        """Return the keys that the rounds of each node xor, [2, 10, 1, nodes], in the lanes' order."""
        return key_table(seeds)

    def round(self, build: MaskBuilder, state: list[ir.Value], key: ir.Value, number: int) -> list[ir.Value]:
        """Return the state after one round more."""
        multipliers = philox.MULTIPLIERS if number % 2 == 0 else philox.MULTIPLIERS[::-1]
        m = np.array(multipliers, np.uint64).reshape(2, 1, 1, 1)
        s, c = state
        if self._casts:
            narrow = build.add("Cast", s, role=f"i_{number}", to=ir.DataType.INT64)
            wrapped = build.add("Mul", narrow, build.constant(m.astype(np.int64)), role=f"q_{number}")
            product = build.add("Cast", wrapped, role=f"p_{number}", to=ir.DataType.UINT64)
        else:
            product = build.add("Mul", s, build.constant(m), role=f"p_{number}")
        high = build.add("BitShift", product, self._number(build, 32), role=f"h_{number}", direction="RIGHT")
        crossed = build.add("Gather", c, build.ints(1, 0), role=f"x_{number}", axis=0)
        mixed = build.add("BitwiseXor", high, crossed, role=f"m_{number}")
        new_s = build.add("BitwiseXor", mixed, key, role=f"s_{number + 1}")
        return [new_s, build.add("BitwiseAnd", product, self._number(build, _LOW), role=f"c_{number + 1}")]

    def with_cycles(self, build: MaskBuilder, draws: ir.Value, strata: int) -> tuple[ir.Value, ir.Value]:
        """Return the draws, followed by the numbers that their cycles draw by, and the draws' places in their cycles.

        The places are int64 of shape [1, 1, rows, 1].
        """
        cycles = build.add("Div", draws, build.ints(strata), role="cycles")
        begins = build.add("Mul", cycles, build.ints(strata), role="begins")
        places = build.add("Sub", draws, begins, role="places")
        marked = build.add("BitwiseOr", cycles, build.ints(int(stratified.CYCLES)), role="marked_cycles")
        both = build.add("Concat", draws, marked, role="draws_and_cycles", axis=0)
        return both, build.add("Reshape", places, build.ints(1, 1, -1, 1), role="places_of_rows")

    def limits(self, thresholds: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return what words are compared with: w >> 8 < T if w < T << 8."""
        return thresholds << 8

    def dropped(
        self, build: MaskBuilder, state: list[ir.Value], limit: ir.Value, balanced: tuple[int, ir.Value] | None
    ) -> ir.Value:
        """Return which entries are dropped, bool [2, 2, rows, blocks].

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
    own, orders = build.outputs("Split", [words], ["own_words", "orders"], axis=2, num_outputs=2)
    period = build.ints(strata)
    kind = build.add("Mod", orders, build.ints(strata * (strata - 1)), role="kinds")
    a = build.add("Add", build.add("Div", kind, period, role="a_less_1"), build.ints(1), role="a")
    moved = build.add("Add", build.add("Mul", a, places, role="a_places"), kind, role="a_places_c")
    rank = build.add("Mod", moved, period, role="ranks")
    return build.add("Add", build.add("Mul", rank, build.ints(2**32), role="above"), own, role="ranked")


def key_table(seeds: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return the keys that the rounds of each node xor, [2, 10, 1, nodes]; lanes swap places every round."""
    table = np.zeros((2, philox.ROUNDS, 1, len(seeds)), np.uint64)
    for n in range(philox.ROUNDS):
        words = [
            [((seed >> 32 * word & _LOW) + n * step) & _LOW for seed in seeds]
            for word, step in enumerate(philox.KEY_STEPS)
        ]
        table[:, n, 0] = words[::-1] if n % 2 == 0 else words
    return table
