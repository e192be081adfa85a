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

from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.passes.masks.builder import MaskBuilder

__all__ = ["FIRST_MUL", "Wide"]

#: ONNX Runtime multiplies uint64 from the version on that reads this opset (1.21). Below, int64 wraps to the same bits.
FIRST_MUL: Final = 22

_LOW: Final = 0xFFFFFFFF
_FRESH_BITS: Final = 62


class Wide:
    """The generator's arithmetic in 64 bits.

    Args:
        opset: the version of ONNX's default domain.
    """

    #: What block numbers are counted in.
    index: Final = ir.DataType.INT64

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
        """Return the steps, uint64, where negative ones have become fresh draws."""
        if negative is not None and coins is not None:
            powers = build.constant(np.array([2**n for n in range(_FRESH_BITS)], np.int64))
            terms = build.add("Where", coins, powers, build.ints(0), role="terms")
            nonce = build.add("ReduceSum", terms, role="nonce", keepdims=1)
            steps = build.add("Where", negative, nonce, steps, role="draws")
        return build.add("Cast", steps, role="draws_u", to=ir.DataType.UINT64)

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
        rows = build.add("Reshape", draws, build.ints(1, 1, -1, 1), role="draws_of_rows")
        drawn = build.add("Expand", rows, shape, role="draws_all")
        counter = build.add("Concat", wide, drawn, role="counter", axis=0)
        low = build.add("BitwiseAnd", counter, self._number(build, _LOW), role="s_0")
        return [low, build.add("BitShift", counter, self._number(build, 32), role="c_0", direction="RIGHT")]

    def key_table(self, seeds: Sequence[int]) -> npt.NDArray[Any]:
        """Return the keys that the rounds of each node xor, [2, 10, 1, nodes], in the lanes' order."""
        table = np.zeros((2, philox.ROUNDS, 1, len(seeds)), np.uint64)
        for n in range(philox.ROUNDS):
            words = [
                [((seed >> 32 * word & _LOW) + n * step) & _LOW for seed in seeds]
                for word, step in enumerate(philox.KEY_STEPS)
            ]
            table[:, n, 0] = words[::-1] if n % 2 == 0 else words
        return table

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

    def dropped(self, build: MaskBuilder, state: list[ir.Value], thresholds: npt.NDArray[np.int64], node: ir.Value | None) -> ir.Value:
        """Return which entries are dropped, bool [2, 2, rows, blocks]: word >> 8 < T, as word < T << 8."""
        words = build.add("Concat", *state, role="words_u", axis=1)
        numbers = build.add("Cast", words, role="words", to=ir.DataType.INT64)
        limits = build.constant(thresholds << 8)
        if node is not None:
            limits = build.add("Gather", limits, node, role="limits", axis=0)
        return build.add("Less", numbers, limits, role="dropped")

    def _number(self, build: MaskBuilder, number: int) -> ir.Value:
        return build.constant(np.array(number, np.uint64))
