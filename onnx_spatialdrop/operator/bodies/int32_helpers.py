"""The helper functions of the int32 bodies: words are int32 with the bits of the uint32; body_int32_words says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.operator.bodies import threefry
from onnx_spatialdrop.operator.dialects import DIALECTS, Words

__all__ = ["as_int32", "helpers"]

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

_PHILOX: Final = """
Philox4x32Int32 (even_0, odd_0, key_0) => (even_10, odd_10)
{
ROUNDS
}
"""

# A number from 0 to 2**63 - 1 modulo 2**31 - 2, below which 2**31 is 2: bits from 31 on are worth twice as much at the
# bottom. The third time leaves less than 2**31, from which the modulus is taken once at most; where int64 is int32 in
# disguise, nothing happens before that.
_REST: Final = """
RestInt64 (number) => (rest)
{
  lower = Constant <value = int64 {2147483647}> ()
  upper = Constant <value = int64 {-2147483648}> ()
  span = Constant <value = int64 {2147483648}> ()
  low0 = BitwiseAnd (number, lower)
  high0 = BitwiseAnd (number, upper)
  times0 = Div (high0, span)
  twice0 = Add (times0, times0)
  n1 = Add (low0, twice0)
  low1 = BitwiseAnd (n1, lower)
  high1 = BitwiseAnd (n1, upper)
  times1 = Div (high1, span)
  twice1 = Add (times1, times1)
  n2 = Add (low1, twice1)
  low2 = BitwiseAnd (n2, lower)
  high2 = BitwiseAnd (n2, upper)
  times2 = Div (high2, span)
  twice2 = Add (times2, times2)
  n3 = Add (low2, twice2)
  rest = Cast <to = 6> (n3)
}
"""


def as_int32(numbers: Sequence[int]) -> str:
    """Return uint32 numbers as the int32 with their bits, for a tensor literal."""
    return "{" + ", ".join(str((number + 2**31) % 2**32 - 2**31) for number in numbers) + "}"


def _philox() -> list[str]:
    swapped = list(reversed(philox.MULTIPLIERS))  # the halves of the state change places before they are multiplied
    round_text = (
        _ROUND.replace("{MULTIPLIERS}", as_int32(swapped))
        .replace("{LOWER}", as_int32([m & 0xFFFF for m in swapped]))
        .replace("{UPPER}", as_int32([m >> 16 for m in swapped]))
        .replace("{KEY_STEPS}", as_int32(philox.KEY_STEPS))
    )
    rounds = "\n".join(
        f"  even_{n + 1}, odd_{n + 1}, key_{n + 1} = DOMAIN.PhiloxRound32 (even_{n}, odd_{n}, key_{n})"
        for n in range(philox.ROUNDS)
    )
    return [_HIGH, round_text, _PHILOX.replace("ROUNDS", rounds)]


_HELPERS: Final[dict[Words, Callable[[], list[str]]]] = {
    "philox": _philox,
    "keras_tf": lambda: [*_philox(), _REST],
    "threefry": threefry.helpers_int32,
}


def helpers(rng: str) -> list[str]:
    """Return the helper functions that the words of a dialect call, each after those that it calls."""
    return [_SPLIT, *_HELPERS[DIALECTS[rng].words]()]
