"""The words of each dialect in int32 alone, as the function body for runtimes without wide integers draws them.

Words are int32 with the bits of the uint32. Written for OpenVINO's CPU, where 64-bit integers saturate to int32, and
division and comparison go through float32. So nothing here divides but exact multiples of a power of two, by at least
2**8 (such a quotient has 24 significant bits), nothing compares numbers over 2**24, but with 0, and Where, which
can go through float32 as well, selects none: bits are put together by masks.
A name that starts with $ belongs to one dialect.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from onnx_spatialdrop.operator.bodies import strata
from onnx_spatialdrop.operator.bodies.int32_helpers import as_int32
from onnx_spatialdrop.operator.bodies.words import ROW
from onnx_spatialdrop.operator.dialects import DIALECTS, KERAS_TF_KEY, KERAS_TF_MODULUS, Words

__all__ = ["Nonce", "draws", "words"]

#: Where a negative step's bits come from: Dropout for ONNX Runtime, RandomUniformLike for OpenVINO and tract, which
#: reads it as one only if the node's name ends in "Like".
Nonce = Literal["dropout", "uniform"]

_NONCE: Final = {
    "dropout": """
  ever_f = Cast <to = 1> (negative)
  width = Constant <value_ints = [62]> ()
  coins = Expand (ever_f, width)
  half_f = Constant <value_float = 0.5> ()
  yes = Constant <value = bool {1}> ()
  heads_f, heads = Dropout (coins, half_f, yes)
  heads_i = Cast <to = 6> (heads)
  powers = Constant <value = int32[62] {POWERS}> ()
  terms = Mul (heads_i, powers)
""",
    "uniform": """
  ever_f = Cast <to = 1> (negative)
  width = Constant <value_ints = [4]> ()
  coins = Expand (ever_f, width)
  uniformsLike = RandomUniformLike <dtype = 1> (coins)
  spans = Constant <value = float[4] {65536, 32768, 65536, 32768}> ()
  spread = Mul (uniformsLike, spans)
  floored = Floor (spread)
  halves_i = Cast <to = 6> (floored)
  weights = Constant <value = int32[4] {1, 65536, 1, 65536}> ()
  terms = Mul (halves_i, weights)
""",
}

_DRAWS: Final = f"""
  two_rows = Constant <value_ints = [2, -1]> ()
  by_word = Reshape (terms, two_rows)
  nonces = ReduceSum <keepdims = 1> (by_word, one)
  nonce_low = Gather <axis = 0> (nonces, zero)
  nonce_high = Gather <axis = 0> (nonces, one)
  nonce_low_ = Reshape (nonce_low, all)
  nonce_high_ = Reshape (nonce_high, all)
  fixed_low, fixed_high = DOMAIN.SplitInt64 (checked)
  negative_32 = Cast <to = 6> (negative)
  minus_one = Constant <value = int32 {{-1}}> ()
  by_nonce = Mul (negative_32, minus_one)
  by_step = Sub (minus_one, by_nonce)
  nonce_low_bits = BitwiseAnd (nonce_low_, by_nonce)
  fixed_low_bits = BitwiseAnd (fixed_low, by_step)
  low = BitwiseOr (nonce_low_bits, fixed_low_bits)
  nonce_high_bits = BitwiseAnd (nonce_high_, by_nonce)
  fixed_high_bits = BitwiseAnd (fixed_high, by_step)
  high = BitwiseOr (nonce_high_bits, fixed_high_bits)

  three = Constant <value_ints = [3]> ()
  four = Constant <value_ints = [4]> ()
{ROW}
  seed_l = Constant <value_int: int = @seed> ()
  zero_i = Constant <value = int32 {{0}}> ()
  unit_i = Constant <value = int32 {{1}}> ()
"""

# Four words a block; a row takes whole blocks and leaves what it does not need.
_BLOCKS: Final = """
  $up = Add (ROW, three)
  $blocks = Div ($up, four)
  $last = Squeeze ($blocks)
  $block_i = Range (first, $last, unit)
"""

_PLANE: Final = """
  $block = Cast <to = 6> ($block_i)
  $plane = Concat <axis = 0> (one, <rows>, $blocks)
  $c0 = Expand ($block, $plane)
  $c1 = Expand (zero_i, $plane)
"""

_PHILOX_COUNTER: Final = """
  $column = Constant <value_ints = [0, 2]> ()
  $low_column = Unsqueeze (<low>, $column)
  $high_column = Unsqueeze (<high>, $column)
  $c2 = Expand ($low_column, $plane)
  $c3 = Expand ($high_column, $plane)
  $even = Concat <axis = 0> ($c0, $c2)
  $odd = Concat <axis = 0> ($c1, $c3)
  $key_low, $key_high = DOMAIN.SplitInt64 (seed_l)
  $planes = Constant <value_ints = [0, 1, 2]> ()
  $k0 = Unsqueeze ($key_low, $planes)
  $k1 = Unsqueeze ($key_high, $planes)
  $key = Concat <axis = 0> ($k0, $k1)
"""

# The seed's remainder is a constant once the body is written out for a node. Comparing with 0 is exact everywhere.
_KERAS_COUNTER: Final = """
  $modulus_l = Constant <value_int = MODULUS> ()
  $seed_rest = Mod (seed_l, $modulus_l)
  $seed_i = Cast <to = 6> ($seed_rest)
  $planes = Constant <value_ints = [0, 1, 2]> ()
  $s0_cell = Unsqueeze ($seed_i, $planes)
  $fixed = DOMAIN.RestInt64 (checked)
  $fixed_bits = BitwiseAnd ($fixed, by_step)
  $drawn = BitwiseOr (nonce_low_bits, $fixed_bits)
  $modulus = Constant <value = int32 {MODULUS}> ()
  $less = Sub ($drawn, $modulus)
  $is_rest = Less ($less, zero_i)
  $is_rest_i = Cast <to = 6> ($is_rest)
  $taken_once = Sub ($is_rest_i, unit_i)
  $taken = BitwiseAnd ($modulus, $taken_once)
  $rest = Sub ($drawn, $taken)
  $column = Constant <value_ints = [0, 2]> ()
  $s1 = Unsqueeze ($rest, $column)
  $cell = Shape ($s1)
  $s0 = Expand ($s0_cell, $cell)
  $mix_even = Concat <axis = 0> ($s0, $s1)
  $mix_odd = Constant <value = int32[2, 1, 1] {0, 0}> ()
  $mix_key = Constant <value = int32[2, 1, 1] MIX_KEY> ()
  $even_mixed, $odd_mixed = DOMAIN.Philox4x32Int32 ($mix_even, $mix_odd, $mix_key)
  $k0 = Gather <axis = 0> ($even_mixed, zero)
  $k1 = Gather <axis = 0> ($odd_mixed, zero)
  $key = Concat <axis = 0> ($k0, $k1)
  $m2 = Gather <axis = 0> ($even_mixed, one)
  $m3 = Gather <axis = 0> ($odd_mixed, one)
  $c2 = Expand ($m2, $plane)
  $c3 = Expand ($m3, $plane)
  $even = Concat <axis = 0> ($c0, $c2)
  $odd = Concat <axis = 0> ($c1, $c3)
"""

_JOIN: Final = """
  $even_words, $odd_words = DOMAIN.Philox4x32Int32 ($even, $odd, $key)
  $evens = Unsqueeze ($even_words, one)
  $odds = Unsqueeze ($odd_words, one)
  $words = Concat <axis = 1> ($evens, $odds)
"""

_THREEFRY: Final = """
  $last = Squeeze (ROW)
  $index_l = Range (first, $last, unit)
  $index = Cast <to = 6> ($index_l)
  $k0, $k0_high = DOMAIN.SplitInt64 (seed_l)
  $k1 = Unsqueeze (low, one)
  $x0, $x1 = DOMAIN.Threefry2x32Int32 (zero_i, $index, $k0, $k1)
  $words = BitwiseXor ($x0, $x1)
"""


_WORDS: Final[dict[Words, str]] = {
    "philox": _BLOCKS + _PLANE + _PHILOX_COUNTER + _JOIN,
    "keras_tf": _BLOCKS
    + _PLANE
    + _KERAS_COUNTER.replace("MODULUS", str(KERAS_TF_MODULUS)).replace("MIX_KEY", as_int32(KERAS_TF_KEY))
    + _JOIN,
    "threefry": _THREEFRY,
}


# For a runtime that knows sizes as terms, not as numbers, and takes terms of one size for different if it has put them
# in order in two ways: a product divided has one order, a sum has several, so there can be a block in excess. And what
# has to have the size is added to zeros of it.
_BLOCKS_SINGLE: Final = """
  $whole = Div (ROW, four)
  $blocks = Add ($whole, one)
  $last = Squeeze ($blocks)
  $block_i = Range (first, $last, unit)
"""
_PLANE_SINGLE: Final = """
  $block = Cast <to = 6> ($block_i)
  $plane_axes = Constant <value_ints = [0, 1]> ()
  $c0 = Unsqueeze ($block, $plane_axes)
  $c1 = Sub ($c0, $c0)
"""
_PLANE_SINGLE_BALANCED: Final = """
  $block = Cast <to = 6> ($block_i)
  $plane_axes = Constant <value_ints = [0, 1]> ()
  $block_row = Unsqueeze ($block, $plane_axes)
  $two_rows = Constant <value = int32[1, 2, 1] {0, 0}> ()
  $c0 = Add ($block_row, $two_rows)
  $c1 = Sub ($c0, $c0)
"""
_IN_PLANE: Final = re.compile(r"Expand \((\S+), \$plane\)")


def draws(nonce: Nonce) -> str:
    """Return the lines that all dialects share: `low` and `high`, the words of one number a row, and more."""
    return _NONCE[nonce].replace("{POWERS}", as_int32([2**n for n in range(31)] * 2)) + _DRAWS


def words(rng: str, *, single: bool, balanced: bool) -> str:
    """Return the lines that draw `$words`, of the shapes that words.words says.

    Args:
        rng: the dialect.
        single: as in body.assemble.
        balanced: the words of the cycles follow, in rows of their own; for "philox" only.
    """
    text = _WORDS[DIALECTS[rng].words]
    if single:
        plane = _PLANE_SINGLE_BALANCED if balanced else _PLANE_SINGLE
        text = _IN_PLANE.sub(r"Add (\1, $c1)", text.replace(_BLOCKS, _BLOCKS_SINGLE).replace(_PLANE, plane))
    both = "both_" if balanced else ""
    for name in ("low", "high", "rows"):
        text = text.replace(f"<{name}>", f"{both}{name}")
    return strata.CYCLES_INT32 + text if balanced else text
