"""The function body once more, for runtimes without 64-bit or unsigned integers: the same bits from int32 alone.

Words are int32 with the bits of the uint32. Written for OpenVINO's CPU, where 64-bit integers saturate to int32, and
division and comparison go through float32. So nothing here divides but exact multiples of a power of two, by at least
2**8 (such a quotient has 24 significant bits), and nothing compares numbers over 2**24.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal

import onnx.parser
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import body, philox, spec

__all__ = ["Nonce", "functions"]

#: Where a negative step's bits come from: Dropout for ONNX Runtime, RandomUniformLike for OpenVINO.
Nonce = Literal["dropout", "uniform"]

# The bits 16 to 31 of a word, as a number from 0 to 65535.
_HIGH: Final = """
HighHalf (word) => (half)
{
  upper = Constant <value = int32 {-65536}> ()
  lower = Constant <value = int32 {65535}> ()
  radix = Constant <value = int32 {65536}> ()
  cleared = BitwiseAnd (word, upper)
  moved = Div (cleared, radix)
  half = BitwiseAnd (moved, lower)
}
"""

# An int64 as two words. Where int64 is int32 in disguise the number is its own low word, and the high word is 0 or -1.
_SPLIT: Final = """
SplitInt64 (number) => (low, high)
{
  upper = Constant <value = int64 {-65536}> ()
  lower = Constant <value = int64 {65535}> ()
  radix = Constant <value = int64 {65536}> ()
  half0 = BitwiseAnd (number, lower)
  from1 = BitwiseAnd (number, upper)
  rest1 = Div (from1, radix)
  half1 = BitwiseAnd (rest1, lower)
  from2 = BitwiseAnd (rest1, upper)
  rest2 = Div (from2, radix)
  half2 = BitwiseAnd (rest2, lower)
  from3 = BitwiseAnd (rest2, upper)
  rest3 = Div (from3, radix)
  half3 = BitwiseAnd (rest3, lower)
  radix_i = Constant <value = int32 {65536}> ()
  i0 = Cast <to = 6> (half0)
  i1 = Cast <to = 6> (half1)
  i2 = Cast <to = 6> (half2)
  i3 = Cast <to = 6> (half3)
  u1 = Mul (i1, radix_i)
  u3 = Mul (i3, radix_i)
  low = Add (i0, u1)
  high = Add (i2, u3)
}
"""

# even holds the counter words 0 and 2 along its first axis, odd the words 1 and 3; both products are taken at once.
# High word of a * m, by halves of 16 bits: t = a1 m0 + (a0 m0 >> 16), u = a0 m1 + (t mod 2**16), a1 m1 + (t >> 16) +
# (u >> 16); no sum reaches 2**32 (Knuth, TAOCP 2, 4.3.1, algorithm M with two digits).
_ROUND: Final = """
PhiloxRound32 (even, odd, key) => (new_even, new_odd, new_key)
{
  swap = Constant <value_ints = [1, 0]> ()
  multiplier = Constant <value = int32[2, 1, 1] {MULTIPLIERS}> ()
  m0 = Constant <value = int32[2, 1, 1] {LOWER}> ()
  m1 = Constant <value = int32[2, 1, 1] {UPPER}> ()
  lower = Constant <value = int32 {65535}> ()
  a = Gather <axis = 0> (even, swap)
  a0 = BitwiseAnd (a, lower)
  a1 = DOMAIN.HighHalf (a)
  p00 = Mul (a0, m0)
  p01 = Mul (a0, m1)
  p10 = Mul (a1, m0)
  p11 = Mul (a1, m1)
  carry = DOMAIN.HighHalf (p00)
  t = Add (p10, carry)
  t0 = BitwiseAnd (t, lower)
  t1 = DOMAIN.HighHalf (t)
  u = Add (p01, t0)
  u1 = DOMAIN.HighHalf (u)
  upper_sum = Add (p11, t1)
  high = Add (upper_sum, u1)
  mixed = BitwiseXor (high, odd)
  new_even = BitwiseXor (mixed, key)
  new_odd = Mul (a, multiplier)
  key_step = Constant <value = int32[2, 1, 1] {KEY_STEPS}> ()
  new_key = Add (key, key_step)
}
"""

_NONCE: Final = {
    "dropout": """
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
  width = Constant <value_ints = [4]> ()
  coins = Expand (ever_f, width)
  uniforms = RandomUniformLike <dtype = 1> (coins)
  spans = Constant <value = float[4] {65536, 32768, 65536, 32768}> ()
  spread = Mul (uniforms, spans)
  floored = Floor (spread)
  halves_i = Cast <to = 6> (floored)
  weights = Constant <value = int32[4] {1, 65536, 1, 65536}> ()
  terms = Mul (halves_i, weights)
""",
}

_WORDS: Final = """
  two_rows = Constant <value_ints = [2, -1]> ()
  by_word = Reshape (terms, two_rows)
  nonces = ReduceSum <keepdims = 1> (by_word, one)
  nonce_low = Gather <axis = 0> (nonces, zero)
  nonce_high = Gather <axis = 0> (nonces, one)
  nonce_low_ = Reshape (nonce_low, all)
  nonce_high_ = Reshape (nonce_high, all)
  fixed_low, fixed_high = DOMAIN.SplitInt64 (checked)
  low = Where (negative, nonce_low_, fixed_low)
  high = Where (negative, nonce_high_, fixed_high)

  three = Constant <value_ints = [3]> ()
  four = Constant <value_ints = [4]> ()
  entries = ReduceProd <keepdims = 1> (entry_shape)
  some_rows = Max (rows, one)
  row = Div (entries, some_rows)
  row_up = Add (row, three)
  blocks = Div (row_up, four)
  first = Squeeze (zero)
  last = Squeeze (blocks)
  unit = Squeeze (one)
  block_l = Range (first, last, unit)
  block = Cast <to = 6> (block_l)
  plane = Concat <axis = 0> (one, rows, blocks)
  zero_i = Constant <value = int32 {0}> ()
  column = Constant <value_ints = [0, 2]> ()
  low_column = Unsqueeze (low, column)
  high_column = Unsqueeze (high, column)
  c0 = Expand (block, plane)
  c1 = Expand (zero_i, plane)
  c2 = Expand (low_column, plane)
  c3 = Expand (high_column, plane)
  even_0 = Concat <axis = 0> (c0, c2)
  odd_0 = Concat <axis = 0> (c1, c3)
  seed_l = Constant <value_int: int = @seed> ()
  key_low, key_high = DOMAIN.SplitInt64 (seed_l)
  planes = Constant <value_ints = [0, 1, 2]> ()
  k0 = Unsqueeze (key_low, planes)
  k1 = Unsqueeze (key_high, planes)
  key_0 = Concat <axis = 0> (k0, k1)
ROUNDS
  last_axis = Constant <value_ints = [3]> ()
  even_words = Unsqueeze (even_10, last_axis)
  odd_words = Unsqueeze (odd_10, last_axis)
  pairs = Concat <axis = 3> (even_words, odd_words)
  words = Transpose <perm = [1, 2, 0, 3]> (pairs)
  top = Constant <value = int32 {-256}> ()
  byte = Constant <value = int32 {256}> ()
  bits_24 = Constant <value = int32 {16777215}> ()
  cleared = BitwiseAnd (words, top)
  moved = Div (cleared, byte)
  fractions = BitwiseAnd (moved, bits_24)
  steps_of_24 = Constant <value_float = 16777216.0> ()
  ratio_24 = Mul (ratio_, steps_of_24)
  threshold_f = Ceil (ratio_24)
  threshold = Cast <to = 6> (threshold_f)
  drop_blocks = Less (fractions, threshold)
  padded_row = Mul (blocks, four)
  padded_shape = Concat <axis = 0> (rows, padded_row)
  drop_padded = Reshape <allowzero = 1> (drop_blocks, padded_shape)
  drop_rows = Slice (drop_padded, zero, row, one)
  drop = Reshape <allowzero = 1> (drop_rows, entry_shape)
"""


def _listed(numbers: list[int]) -> str:
    """Return uint32 numbers as the int32 with their bits, for a tensor literal."""
    return "{" + ", ".join(str((number + 2**31) % 2**32 - 2**31) for number in numbers) + "}"


def _texts(nonce: Nonce, in_float: bool) -> list[str]:
    swapped = list(reversed(philox.MULTIPLIERS))  # the halves of the state change places before they are multiplied
    round_text = (
        _ROUND.replace("{MULTIPLIERS}", _listed(swapped))
        .replace("{LOWER}", _listed([m & 0xFFFF for m in swapped]))
        .replace("{UPPER}", _listed([m >> 16 for m in swapped]))
        .replace("{KEY_STEPS}", _listed(list(philox.KEY_STEPS)))
    )
    rounds = "\n".join(
        f"  even_{n + 1}, odd_{n + 1}, key_{n + 1} = DOMAIN.PhiloxRound32 (even_{n}, odd_{n}, key_{n})"
        for n in range(philox.ROUNDS)
    )
    words = (_NONCE[nonce] + _WORDS).replace("ROUNDS", rounds)
    words = words.replace("{POWERS}", _listed([2**n for n in range(31)] * 2))
    main = body.HEAD + body.ROWS + words + body.TAIL + (body.IN_FLOAT if in_float else body.IN_T)
    return [text.replace("DOMAIN", spec.DOMAIN) for text in (_HIGH, _SPLIT, round_text, main)]


@cache
def _protos(opset: int, nonce: Nonce, in_float: bool) -> tuple[onnx.FunctionProto, ...]:
    header = f'<domain: "{spec.DOMAIN}", opset_import: ["": {opset}, "{spec.DOMAIN}": {spec.VERSION}]>'
    return tuple(onnx.parser.parse_function(header + text) for text in _texts(nonce, in_float))


def functions(opset: int, *, nonce: Nonce = "dropout", in_float: bool = False) -> list[ir.Function]:
    """Return new functions that define SpatialDropout on int32, helpers first; they are there to be inlined.

    In OpenVINO a step must lie below 2**31, and a mask row below 2**24 entries; elsewhere a mask must have fewer than
    2**33 entries a row, and steps have all 64 bits.

    Args:
        opset: the version of ONNX's default domain that the model imports, 18 or newer.
        nonce: what draws for a negative step.
        in_float: as in body.functions.

    Raises:
        FormError: the opset is below 18.
    """
    if opset < body.MIN_OPSET:
        raise FormError(f"the model imports opset {opset}; the int32 body needs {body.MIN_OPSET} or newer")
    return [ir.serde.deserialize_function(proto) for proto in _protos(opset, nonce, in_float)]
