"""Threefry2x32-20 as a helper function of the bodies, on int64 or on int32 words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from onnx_spatialdrop.operator import threefry

__all__ = ["helpers", "helpers_int32"]

# Words below 2**32 in int64. Turned left by r: multiplied by 2**r, whose upper half comes in again below.
_ADD_INT64: Final = """
AddWords (a, b) => (sum)
{
  low = Constant <value_int = 4294967295> ()
  wide = Add (a, b)
  sum = BitwiseAnd (wide, low)
}
"""
_TURN_INT64: Final = """
TurnWord (word, power) => (turned)
{
  low = Constant <value_int = 4294967295> ()
  span = Constant <value_int = 4294967296> ()
  moved = Mul (word, power)
  upper = BitwiseAnd (moved, low)
  lower = Div (moved, span)
  turned = BitwiseOr (upper, lower)
}
"""

# A word turned left by r, at most 24: times 2**r, and divided by `span`, 2**(32 - r), which has to be 2**8 at least.
# `top` has the upper r bits set, `bottom` the lower r.
_TURN_INT32: Final = """
TurnWordInt32 (word, power, top, span, bottom) => (turned)
{
  upper = Mul (word, power)
  cleared = BitwiseAnd (word, top)
  moved = Div (cleared, span)
  lower = BitwiseAnd (moved, bottom)
  turned = BitwiseOr (upper, lower)
}
"""

_MAIN: Final = """
NAME (c0, c1, k0, k1) => (x0, x1)
{
CONSTANTS
  k01 = BitwiseXor (k0, k1)
  k2 = BitwiseXor (k01, parity)
ROUNDS
}
"""

#: Turns that are too far for int32 at once, as two.
_IN_TWO: Final = {26: (16, 10), 29: (16, 13)}


def helpers() -> list[str]:
    """Return the helper functions on int64: words in [0, 2**32), of shapes that broadcast."""
    numbers = {f"power{r}": 2**r for r in threefry.ROTATIONS} | {"parity": threefry.PARITY}
    numbers |= {f"number{n}": n for n in range(1, threefry.ROUNDS // 4 + 1)}
    constants = [f"  {name} = Constant <value_int = {value}> ()" for name, value in numbers.items()]

    def turned(source: str, target: str, r: int) -> list[str]:
        return [f"  {target} = DOMAIN.TurnWord ({source}, power{r})"]

    return [_ADD_INT64, _TURN_INT64, _main("Threefry2x32", "DOMAIN.AddWords", constants, turned)]


def helpers_int32() -> list[str]:
    """Return the helper functions on int32: words are int32 with the bits of the uint32, of shapes that broadcast."""
    numbers = {"parity": threefry.PARITY} | {f"number{n}": n for n in range(1, threefry.ROUNDS // 4 + 1)}
    for r in sorted({part for whole in threefry.ROTATIONS for part in _IN_TWO.get(whole, (whole,))}):
        span = 2 ** (32 - r)
        numbers |= {f"power{r}": 2**r, f"top{r}": -span, f"span{r}": span, f"bottom{r}": 2**r - 1}
    constants = [f"  {name} = Constant <value = int32 {{{value}}}> ()" for name, value in numbers.items()]

    def turned(source: str, target: str, r: int) -> list[str]:
        if r in _IN_TWO:
            first, second = _IN_TWO[r]
            return [*turned(source, f"{target}_half", first), *turned(f"{target}_half", target, second)]
        return [f"  {target} = DOMAIN.TurnWordInt32 ({source}, power{r}, top{r}, span{r}, bottom{r})"]

    return [_TURN_INT32, _main("Threefry2x32Int32", "Add", constants, turned)]


def _main(name: str, add: str, constants: list[str], turned: Callable[[str, str, int], list[str]]) -> str:
    """Return the function: twenty rounds, and after every fourth the next two key words and the group's number."""
    lines = [f"  a_0 = {add} (c0, k0)", f"  b_0 = {add} (c1, k1)"]
    for n in range(threefry.ROUNDS):
        group, ends = n // 4 + 1, n % 4 == 3
        a, b = (f"a{n}_unkeyed", f"b{n}_unkeyed") if ends else (f"a_{n + 1}", f"b_{n + 1}")
        lines.append(f"  {a} = {add} (a_{n}, b_{n})")
        lines += turned(f"b_{n}", f"b{n}_turned", threefry.ROTATIONS[n % len(threefry.ROTATIONS)])
        lines.append(f"  {b} = BitwiseXor (b{n}_turned, {a})")
        if ends:
            after_a, after_b = ("x0", "x1") if n + 1 == threefry.ROUNDS else (f"a_{n + 1}", f"b_{n + 1}")
            lines.append(f"  {after_a} = {add} ({a}, k{group % 3})")
            lines.append(f"  b{n}_keyed = {add} ({b}, k{(group + 1) % 3})")
            lines.append(f"  {after_b} = {add} (b{n}_keyed, number{group})")
    text = _MAIN.replace("NAME", name).replace("CONSTANTS", "\n".join(constants))
    return text.replace("ROUNDS", "\n".join(lines))
