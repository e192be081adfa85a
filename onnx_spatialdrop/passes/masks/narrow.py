"""Philox4x32-10 on int32 alone, for runtimes without wide integers: words are int32 with the bits of the uint32.

Written for OpenVINO's CPU, where 64-bit integers saturate to int32, and division and comparison go through float32. So
nothing divides but exact multiples of a power of two by at least 2**8 (such a quotient has 24 significant bits),
nothing compares numbers over 2**24, but with 0, and Where, which can go through float32 as well, selects none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.passes.masks import wide
from onnx_spatialdrop.passes.masks.builder import MaskBuilder

__all__ = ["Narrow", "Nonce"]

#: Where a negative step's bits come from: Dropout for ONNX Runtime, which has no RandomUniformLike at opset 22;
#: RandomUniformLike for OpenVINO and tract, which refuse Dropout while training.
Nonce = Literal["dropout", "uniform"]

_LOWER: Final = 0xFFFF
_UPPER: Final = -(1 << 16)
_RADIX: Final = 1 << 16


class Narrow:
    """The generator's arithmetic in 32 bits.

    Args:
        nonce: what draws for a negative step.
    """

    def __init__(self, nonce: Nonce) -> None:
        self._nonce = nonce

    def _coins(self, build: MaskBuilder, fed: ir.Value) -> ir.Value:
        """Return what a fresh draw is made of, int32 of two rows."""
        fresh = build.add("Cast", fed, role="fed_f", to=ir.DataType.FLOAT)
        if self._nonce == "dropout":
            spread = build.add("Expand", fresh, build.ints(62), role="coins")
            half, yes = build.constant(np.float32(0.5)), build.constant(np.array(True))
            heads = build.outputs("Dropout", [spread, half, yes], ["heads_f", "heads"])[1]
            return build.add("Cast", heads, role="heads_i", to=ir.DataType.INT32)
        spread = build.add("Expand", fresh, build.ints(4), role="coins")
        # tract reads the node as RandomUniformLike only if its name ends in "Like".
        numbers = build.add("RandomUniformLike", spread, role="uniformsLike", dtype=1)
        spans = build.constant(np.array([65536, 32768, 65536, 32768], np.float32))
        floored = build.add("Floor", build.add("Mul", numbers, spans, role="spread"), role="floored")
        return build.add("Cast", floored, role="halves", to=ir.DataType.INT32)

    def draws(self, build: MaskBuilder, steps: ir.Value, fed: ir.Value | None) -> ir.Value:
        """Return the two words of each step, int32 [2, rows], where negative ones have become fresh draws."""
        given = self._split(build, steps)
        if fed is None:
            return given
        coins = self._coins(build, fed)
        negative = build.add("Less", steps, build.ints(0), role="negative")
        weights = [2**n for n in range(31)] * 2 if self._nonce == "dropout" else [1, _RADIX] * 2
        terms = build.add("Mul", coins, self._numbers(build, weights), role="terms")
        by_word = build.add("Reshape", terms, build.ints(2, -1), role="by_word")
        nonce = build.add("ReduceSum", by_word, build.ints(1), role="nonce", keepdims=1)
        negatives = build.add("Cast", negative, role="negative_32", to=ir.DataType.INT32)
        by_nonce = build.add("Mul", negatives, self._number(build, -1), role="by_nonce")
        by_step = build.add("Sub", self._number(build, -1), by_nonce, role="by_step")
        drawn = build.add("BitwiseAnd", nonce, by_nonce, role="nonce_bits")
        kept = build.add("BitwiseAnd", given, by_step, role="step_bits")
        return build.add("BitwiseOr", drawn, kept, role="draws")

    def _split(self, build: MaskBuilder, number: ir.Value) -> ir.Value:
        """Return the words of int64 numbers, int32 [2, rows].

        Where int64 is int32 in disguise a number is its own low word, and the high word is 0 or -1.
        """
        lower, upper, radix = (build.constant(np.array(n, np.int64)) for n in (_LOWER, _UPPER, _RADIX))
        rest, halves = number, list[ir.Value]()
        for place in range(4):
            half = build.add("BitwiseAnd", rest, lower, role=f"half_{place}")
            halves.append(build.add("Cast", half, role=f"half_i_{place}", to=ir.DataType.INT32))
            if place < 3:
                cleared = build.add("BitwiseAnd", rest, upper, role=f"cleared_{place}")
                rest = build.add("Div", cleared, radix, role=f"rest_{place}")
        words = []
        for word in range(2):
            moved = build.add("Mul", halves[2 * word + 1], self._number(build, _RADIX), role=f"moved_{word}")
            joined = build.add("Add", halves[2 * word], moved, role=f"word_{word}")
            words.append(build.add("Reshape", joined, build.ints(1, -1), role=f"row_{word}"))
        return build.add("Concat", *words, role="words_of_steps", axis=0)

    def with_cycles(self, build: MaskBuilder, draws: ir.Value, strata: int) -> tuple[ir.Value, ir.Value]:
        """Return the draws, followed by the numbers that their cycles draw by, and the draws' places in their cycles.

        The places are int32 of shape [rows, 1, 1].
        """
        upper = build.outputs("Split", [self._upper(build, draws, "step")], ["step_1", "step_3"], axis=0, num_outputs=2)
        halves = build.add("BitwiseAnd", draws, self._number(build, _LOWER), role="step_halves")
        lower = build.outputs("Split", [halves], ["step_0", "step_2"], axis=0, num_outputs=2)
        parts, rest = self._divided(build, [upper[1], lower[1], upper[0], lower[0]], strata, "cycle")
        high = self._joined(build, parts[0], parts[1], "cycle_high")
        low = self._joined(build, parts[2], parts[3], "cycle_low")
        marked = build.add("BitwiseOr", high, self._number(build, 2**31), role="marked_cycles")
        cycles = build.add("Concat", low, marked, role="cycles", axis=0)
        both = build.add("Concat", draws, cycles, role="draws_and_cycles", axis=1)
        return both, build.add("Reshape", rest, build.ints(-1, 1, 1), role="places_of_rows")

    def _upper(self, build: MaskBuilder, word: ir.Value, role: str) -> ir.Value:
        """Return the bits 16 to 31 of words."""
        cleared = build.add("BitwiseAnd", word, self._number(build, _UPPER), role=f"{role}_cleared")
        moved = build.add("Div", cleared, self._number(build, _RADIX), role=f"{role}_moved")
        return build.add("BitwiseAnd", moved, self._number(build, _LOWER), role=f"{role}_upper")

    def _joined(self, build: MaskBuilder, upper: ir.Value, lower: ir.Value, role: str) -> ir.Value:
        moved = build.add("Mul", upper, self._number(build, _RADIX), role=f"{role}_upper")
        return build.add("Add", moved, lower, role=f"{role}_joined")

    def _divided(
        self, build: MaskBuilder, halves: Sequence[ir.Value], by: int, role: str
    ) -> tuple[list[ir.Value], ir.Value]:
        """Return the halves of a quotient, the uppermost first, and the remainder.

        As by hand: what is divided at a time stays below 2**24 less the divisor, at most 127, so that a quotient in
        float32, rounded down, is right.
        """
        quotients, rest = list[ir.Value](), None
        for place, half in enumerate(halves):
            number = half if rest is None else self._joined(build, rest, half, f"{role}_{place}")
            quotients.append(build.add("Div", number, self._number(build, by), role=f"{role}_quotient_{place}"))
            times = build.add("Mul", quotients[-1], self._number(build, by), role=f"{role}_times_{place}")
            rest = build.add("Sub", number, times, role=f"{role}_rest_{place}")
        assert rest is not None
        return quotients, rest

    def start(self, build: MaskBuilder, blocks: ir.Value, draws: ir.Value) -> list[ir.Value]:
        """Return the state before the first round; see Wide.start. There are fewer than 2**32 blocks a row.

        C has a column that stands for all blocks.
        """
        block = build.add("Cast", blocks, role="blocks_i", to=ir.DataType.INT32)
        words = build.outputs("Split", [draws], ["draw_low", "draw_high"], axis=0, num_outputs=2)
        low, high = (
            build.add("Reshape", word, build.ints(-1, 1, 1), role=f"{role}_of_rows")
            for word, role in zip(words, ("low", "high"), strict=True)
        )
        first, second = (self._numbers(build, lane, (2, 1)) for lane in ([1, 0], [0, 1]))
        low_lane, high_lane = (
            build.add("Mul", word, second, role=f"{role}_lane") for word, role in ((low, "low"), (high, "high"))
        )
        return [build.add("Add", build.add("Mul", block, first, role="block_lane"), low_lane, role="s_0"), high_lane]

    def key_table(self, seeds: Sequence[int]) -> npt.NDArray[Any]:
        """Return the keys of the rounds of each node; see Wide.key_table."""
        return wide.key_table(seeds).astype(np.uint32).view(np.int32)

    def round(self, build: MaskBuilder, state: list[ir.Value], key: ir.Value, number: int) -> list[ir.Value]:
        """Return the state after one round more.

        The high word of a product by halves: t = a1 m0 + (a0 m0 >> 16), u = a0 m1 + (t mod 2**16), a1 m1 + (t >> 16) +
        (u >> 16); no sum reaches 2**32 (Knuth, TAOCP 2, 4.3.1, algorithm M with two digits).
        """

        def add(op_type: str, *inputs: ir.Value, role: str, **attributes: Any) -> ir.Value:
            return build.add(op_type, *inputs, role=f"{role}_{number}", **attributes)

        def upper_half(word: ir.Value, role: str) -> ir.Value:
            cleared = add("BitwiseAnd", word, self._number(build, _UPPER), role=f"{role}_cleared")
            moved = add("Div", cleared, self._number(build, _RADIX), role=f"{role}_moved")
            return add("BitwiseAnd", moved, self._number(build, _LOWER), role=f"{role}_upper")

        multipliers = philox.MULTIPLIERS[::-1]
        m, m0, m1 = (
            self._numbers(build, numbers, (2, 1))
            for numbers in (multipliers, [n & _LOWER for n in multipliers], [n >> 16 for n in multipliers])
        )
        c, lower = state[1], self._number(build, _LOWER)
        s = add("Gather", state[0], build.ints(1, 0), role="x", axis=1)
        a0, a1 = add("BitwiseAnd", s, lower, role="a0"), upper_half(s, "a")
        t = add("Add", add("Mul", a1, m0, role="p10"), upper_half(add("Mul", a0, m0, role="p00"), "p00"), role="t")
        u = add("Add", add("Mul", a0, m1, role="p01"), add("BitwiseAnd", t, lower, role="t0"), role="u")
        above = add("Add", add("Mul", a1, m1, role="p11"), upper_half(t, "t"), role="above")
        high = add("Add", above, upper_half(u, "u"), role="high")
        mixed = add("BitwiseXor", high, c, role="mixed")
        new_s = build.add("BitwiseXor", mixed, key, role=f"s_{number + 1}")
        return [new_s, build.add("Mul", s, m, role=f"c_{number + 1}")]

    def limits(self, thresholds: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return what the upper 24 bits of words are compared with."""
        return thresholds.astype(np.int32)

    def dropped(
        self, build: MaskBuilder, state: list[ir.Value], limit: ir.Value, balanced: tuple[int, ir.Value] | None
    ) -> ir.Value:
        """Return which entries are dropped, bool [rows, 4, blocks]; see Wide.dropped."""
        words = build.add("Concat", *state, role="words", axis=1)
        if balanced is not None:
            words, orders = build.outputs("Split", [words], ["own_words", "orders"], axis=0, num_outputs=2)
        cleared = build.add("BitwiseAnd", words, self._number(build, -(1 << 8)), role="words_cleared")
        moved = build.add("Div", cleared, self._number(build, 1 << 8), role="words_moved")
        numbers = build.add("BitwiseAnd", moved, self._number(build, 0xFFFFFF), role="numbers")
        if balanced is None:
            return build.add("Less", numbers, limit, role="dropped")
        above = build.add("Mul", self._ranks(build, orders, *balanced), self._number(build, 1 << 24), role="above")
        over = build.add("Sub", build.add("Add", above, numbers, role="ranked"), limit, role="over")
        return build.add("Less", over, self._number(build, 0), role="dropped")

    def _ranks(self, build: MaskBuilder, orders: ir.Value, strata: int, places: ir.Value) -> ir.Value:
        """Return (a place + c) mod strata, where an order's word is strata t + c, and a is 1 + t mod (strata - 1)."""
        lower = build.add("BitwiseAnd", orders, self._number(build, _LOWER), role="order_lower")
        halves = [self._upper(build, orders, "order"), lower]
        turns, c = self._divided(build, halves, strata, "turn")
        a_less_1 = self._divided(build, turns, strata - 1, "factor")[1]
        moved = build.add("Mul", build.add("Add", a_less_1, self._number(build, 1), role="a"), places, role="a_places")
        return self._divided(build, [build.add("Add", moved, c, role="a_places_c")], strata, "rank")[1]

    def _number(self, build: MaskBuilder, number: int) -> ir.Value:
        return build.constant(np.array(number % 2**32, np.uint32).view(np.int32))

    def _numbers(self, build: MaskBuilder, numbers: Sequence[int], shape: tuple[int, ...] = (-1,)) -> ir.Value:
        wrapped = np.array([n % 2**32 for n in numbers], np.uint32).view(np.int32)
        return build.constant(wrapped.reshape(shape))
