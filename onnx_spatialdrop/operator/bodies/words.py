"""The words of each dialect in 64-bit integers, as function bodies draw them: helpers, and the lines that call them.

A name that starts with $ belongs to one dialect; the assembly puts the dialect's own prefix there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.operator.bodies import threefry
from onnx_spatialdrop.operator.dialects import DIALECTS, KERAS_TF_KEY, KERAS_TF_MODULUS, Words

__all__ = ["BLOCKS", "DRAWS", "ROW", "helpers", "is_blocked", "words"]

# ONNX Runtime multiplies uint64 from 1.21 on only. int64 products wrap to the same 64 bits.
_PHILOX_ROUND: Final = f"""
PhiloxRound (c0, c1, c2, c3, k0, k1) => (d0, d1, d2, d3)
{{
  low = Constant <value = uint64 {{{0xFFFFFFFF}}}> ()
  half = Constant <value = uint64 {{32}}> ()
  m0 = Constant <value_int = {philox.MULTIPLIERS[0]}> ()
  m1 = Constant <value_int = {philox.MULTIPLIERS[1]}> ()
  i0 = Cast <to = 7> (c0)
  i2 = Cast <to = 7> (c2)
  q0 = Mul (m0, i0)
  q1 = Mul (m1, i2)
  p0 = Cast <to = 13> (q0)
  p1 = Cast <to = 13> (q1)
  h0 = BitShift <direction = "RIGHT"> (p0, half)
  h1 = BitShift <direction = "RIGHT"> (p1, half)
  x0 = BitwiseXor (h1, c1)
  d0 = BitwiseXor (x0, k0)
  d1 = BitwiseAnd (p1, low)
  x2 = BitwiseXor (h0, c3)
  d2 = BitwiseXor (x2, k1)
  d3 = BitwiseAnd (p0, low)
}}
"""

# Key words have a last axis of 1, along which the ten keys of the rounds are laid out and cut apart.
_PHILOX: Final = """
Philox4x32 (c0_0, c1_0, c2_0, c3_0, k0, k1) => (c0_10, c1_10, c2_10, c3_10)
{
  low = Constant <value = uint64 {4294967295}> ()
KEYS
ROUNDS
}
"""

#: The length `row` of a row of mask entries, and numbers to count in it.
ROW: Final = """\
  three = Constant <value_ints = [3]> ()
  four = Constant <value_ints = [4]> ()
  some_rows = Max (rows, one)
  row = Div (entries, some_rows)
  first = Squeeze (zero)
  unit = Squeeze (one)"""

#: What all dialects draw from: `draws`, one number a row, the length `row` of a row, and the seed.
DRAWS: Final = f"""
  width = Constant <value_ints = [62]> ()
  coins = Expand (ever_f, width)
  half_f = Constant <value_float = 0.5> ()
  yes = Constant <value = bool {{1}}> ()
  heads_f, heads = Dropout (coins, half_f, yes)
  heads_i = Cast <to = 7> (heads)
  powers = Constant <value_ints = [{", ".join(str(2**n) for n in range(62))}]> ()
  terms = Mul (heads_i, powers)
  nonce = ReduceSum <keepdims = 1> (terms)
  draws = Where (negative, nonce, checked)

  low = Constant <value = uint64 {{4294967295}}> ()
  half = Constant <value = uint64 {{32}}> ()
{ROW}
  seed_i = Constant <value_int: int = @seed> ()
"""

# Four words a block, side by side; a row takes whole blocks and leaves what it does not need.
BLOCKS: Final = """
  $up = Add (ROW, three)
  $blocks = Div ($up, four)
  $last = Squeeze ($blocks)
  $block_i = Range (first, $last, unit)
"""

_BLOCK_HALVES: Final = """
  $block = Cast <to = 13> ($block_i)
  $c0 = BitwiseAnd ($block, low)
  $c1 = BitShift <direction = "RIGHT"> ($block, half)
"""

_JOIN: Final = """
  $q0 = Unsqueeze ($w0, all)
  $q1 = Unsqueeze ($w1, all)
  $q2 = Unsqueeze ($w2, all)
  $q3 = Unsqueeze ($w3, all)
  $words = Concat <axis = 2> ($q0, $q1, $q2, $q3)
"""

_WORDS: Final[dict[Words, str]] = {
    "philox": BLOCKS
    + _BLOCK_HALVES
    + """
  $draws_u = Cast <to = 13> (draws)
  $draw = Unsqueeze ($draws_u, one)
  $c2 = BitwiseAnd ($draw, low)
  $c3 = BitShift <direction = "RIGHT"> ($draw, half)
  $key_scalar = Cast <to = 13> (seed_i)
  $key = Unsqueeze ($key_scalar, zero)
  $k0 = BitwiseAnd ($key, low)
  $k1 = BitShift <direction = "RIGHT"> ($key, half)
  $w0, $w1, $w2, $w3 = DOMAIN.Philox4x32 ($c0, $c1, $c2, $c3, $k0, $k1)
"""
    + _JOIN,
    "keras_tf": BLOCKS
    + _BLOCK_HALVES
    + f"""
  $modulus = Constant <value_ints = [{KERAS_TF_MODULUS}]> ()
  $seed_rest = Mod (seed_i, $modulus)
  $s0 = Cast <to = 13> ($seed_rest)
  $draw_rest = Mod (draws, $modulus)
  $draw_u = Cast <to = 13> ($draw_rest)
  $s1 = Unsqueeze ($draw_u, one)
  $none = Constant <value = uint64[1] {{0}}> ()
  $mix0 = Constant <value = uint64[1] {{{KERAS_TF_KEY[0]}}}> ()
  $mix1 = Constant <value = uint64[1] {{{KERAS_TF_KEY[1]}}}> ()
  $m0, $m1, $m2, $m3 = DOMAIN.Philox4x32 ($s0, $none, $s1, $none, $mix0, $mix1)
  $w0, $w1, $w2, $w3 = DOMAIN.Philox4x32 ($c0, $c1, $m2, $m3, $m0, $m1)
"""
    + _JOIN,
    "threefry": """
  $last = Squeeze (ROW)
  $index = Range (first, $last, unit)
  $low_i = Constant <value_int = 4294967295> ()
  $span = Constant <value_int = 4294967296> ()
  $c0 = Div ($index, $span)
  $c1 = BitwiseAnd ($index, $low_i)
  $k0 = BitwiseAnd (seed_i, $low_i)
  $draws_low = BitwiseAnd (draws, $low_i)
  $k1 = Unsqueeze ($draws_low, one)
  $x0, $x1 = DOMAIN.Threefry2x32 ($c0, $c1, $k0, $k1)
  $words_i = BitwiseXor ($x0, $x1)
  $words = Cast <to = 13> ($words_i)
""",
}


def _philox() -> str:
    keys = []
    for word, increment in enumerate(philox.KEY_STEPS):
        steps = ", ".join(str(n * increment) for n in range(philox.ROUNDS))
        names = ", ".join(f"k{word}_{n}" for n in range(philox.ROUNDS))
        keys += [
            f"  k{word}_i = Cast <to = 7> (k{word})",
            f"  k{word}_steps = Constant <value_ints = [{steps}]> ()",
            f"  k{word}_sums_i = Add (k{word}_i, k{word}_steps)",
            f"  k{word}_sums = Cast <to = 13> (k{word}_sums_i)",
            f"  k{word}_all = BitwiseAnd (k{word}_sums, low)",
            f"  {names} = Split <axis = -1, num_outputs = {philox.ROUNDS}> (k{word}_all)",
        ]
    rounds = []
    for n in range(philox.ROUNDS):
        after = ", ".join(f"{name}_{n + 1}" for name in ("c0", "c1", "c2", "c3"))
        before = ", ".join(f"{name}_{n}" for name in ("c0", "c1", "c2", "c3", "k0", "k1"))
        rounds.append(f"  {after} = DOMAIN.PhiloxRound ({before})")
    return _PHILOX.replace("KEYS", "\n".join(keys)).replace("ROUNDS", "\n".join(rounds))


_HELPERS: Final[dict[Words, Callable[[], list[str]]]] = {
    "philox": lambda: [_PHILOX_ROUND, _philox()],
    "keras_tf": lambda: [_PHILOX_ROUND, _philox()],
    "threefry": threefry.helpers,
}


def helpers(rngs: Sequence[str]) -> list[str]:
    """Return the helper functions that the words of these dialects call, each after those that it calls."""
    return list(dict.fromkeys(text for rng in rngs for text in _HELPERS[DIALECTS[rng].words]()))


def words(rng: str) -> str:
    """Return the lines that draw `$words`, uint64 below 2**32, from `draws`, `seed_i` and `ROW`.

    They have the shape [rows, blocks, 4] where the generator makes blocks of four, and [rows, ROW] elsewhere.
    """
    return _WORDS[DIALECTS[rng].words]


def is_blocked(rng: str) -> bool:
    """Return whether the dialect's words come in blocks of four, of which there are `$blocks` a row."""
    return DIALECTS[rng].words != "threefry"
