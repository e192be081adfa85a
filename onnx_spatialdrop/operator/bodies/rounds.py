"""Philox4x32-10 in 64-bit integers, as function bodies work it out: two lanes side by side, eight nodes a round.

S holds the counter words 0 and 2, C the words 1 and 3, one a lane. A round multiplies S and hands each product to the
other lane: lanes swap places every round, so multipliers and keys alternate instead. ONNX Runtime multiplies uint64
from 1.21 on only; int64 products wrap to the same bits, and cost two casts.
A name that starts with $ belongs to whoever calls for these lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from onnx_spatialdrop.operator import philox

__all__ = ["CONSTANTS", "lines"]

_LOW: Final = 0xFFFFFFFF

# Adding to the upper half leaves the lower one alone, so one sum serves both words of the key.
_START: Final = """
  $counter_u = Cast <to = 13> ($counter)
  $s_0 = BitwiseAnd ($counter_u, low)
  $c_0 = BitShift <direction = "RIGHT"> ($counter_u, half)
  $key_steps = Constant <value = int64KEY_SHAPE {KEY_STEPS}> ()
  $key_shifts = Constant <value = uint64KEY_SHAPE {KEY_SHIFTS}> ()
  $key_sums = Add (KEY, $key_steps)
  $key_sums_u = Cast <to = 13> ($key_sums)
  $key_words = BitShift <direction = "RIGHT"> ($key_sums_u, $key_shifts)
  $keys = BitwiseAnd ($key_words, low)
"""

_ROUND: Final = """
  @i = Cast <to = 7> (S_IN)
  @q = Mul (@i, M_IN)
  @p = Cast <to = 13> (@q)
  @h = BitShift <direction = "RIGHT"> (@p, HALF)
  @x = Gather <axis = 0> (C_IN, SWAP)
  @y = BitwiseXor (@h, @x)
  S_OUT = BitwiseXor (@y, K_IN)
  C_OUT = BitwiseAnd (@p, LOW)
"""

#: The lines that make `low` and `half`.
CONSTANTS: Final = """
  low = Constant <value = uint64 {4294967295}> ()
  half = Constant <value = uint64 {32}> ()
"""
_SWAP: Final = "  $swap = Constant <value_ints = [1, 0]> ()\n"

# The body of the Scan has constants of its own: not every tool hands it those of the function around it. Names are
# unique in the whole function, as onnx's checker asks, and ranks are told, as ONNX Runtime does.
_SCAN: Final = """
  $multipliers = Constant <value = int64[10, 2, 1, 1, 1] {MULTIPLIERS}> ()
  $s_10, $c_10 = Scan <num_scan_inputs = 2, body = philox_round (
    uint64[2, 1, ?, ?] $s_in, uint64[2, 1, ?, ?] $c_in, int64[2, 1, 1, 1] $m_in, uint64[2, 1, ?, 1] $k_in
  ) => (uint64[2, 1, ?, ?] $s_out, uint64[2, 1, ?, ?] $c_out)
  {
ROUND
  }> ($s_0, $c_0, $multipliers, $keys)
"""


def lines(key: str, *, scan: bool) -> str:
    """Return the lines that make `$s_10` and `$c_10`, uint64 below 2**32: the words 0 and 2 of each block, and 1 and 3.

    They have the shape of `$counter`, int64 [2, 1, rows, blocks]: numbers of blocks, and the upper halves of counters.

    Args:
        key: the name of the keys, int64 of a shape that broadcasts against [rows, 1].
        scan: ten rounds are one Scan, which ONNX Runtime loads and runs in less time; else they are written out.
    """
    text = (
        _START.replace("KEY,", f"{key},")
        .replace("{KEY_STEPS}", _listed(_key_steps(), scan))
        .replace("{KEY_SHIFTS}", _listed(_shifts(), scan))
    )
    text = text.replace("KEY_SHAPE", "[10, 2, 1, 1, 1]" if scan else "[2, 10, 1, 1]")
    if scan:
        names = {name: f"${name.lower()}" for name in ("S_IN", "C_IN", "M_IN", "K_IN", "S_OUT", "C_OUT", "SWAP")}
        inner_names = {"HALF": "$half_in", "LOW": "$low_in", "@": "$in_"}
        inner = CONSTANTS.replace("low =", "$low_in =").replace("half =", "$half_in =") + _SWAP
        inner += _named(_ROUND, names | inner_names)
        multipliers = [[philox.MULTIPLIERS[(lane + n) % 2] for n in range(philox.ROUNDS)] for lane in range(2)]
        text += _SCAN.replace("{MULTIPLIERS}", _listed(multipliers, scan)).replace("ROUND", inner)
    else:
        text += _written_out()
    return text


def _written_out() -> str:
    text = _SWAP
    for parity in range(2):
        ordered = ", ".join(str(philox.MULTIPLIERS[(lane + parity) % 2]) for lane in range(2))
        text += f"  $m_{parity} = Constant <value = int64[2, 1, 1, 1] {{{ordered}}}> ()\n"
    keys = ", ".join(f"$k_{n}" for n in range(philox.ROUNDS))
    text += f"  {keys} = Split <axis = 1, num_outputs = {philox.ROUNDS}> ($keys)\n"
    for n in range(philox.ROUNDS):
        names = {"S_IN": f"$s_{n}", "C_IN": f"$c_{n}", "M_IN": f"$m_{n % 2}", "K_IN": f"$k_{n}"}
        names |= {
            "S_OUT": f"$s_{n + 1}",
            "C_OUT": f"$c_{n + 1}",
            "@": f"$r{n}_",
            "SWAP": "$swap",
            "HALF": "half",
            "LOW": "low",
        }
        text += _named(_ROUND, names)
    return text


def _named(text: str, names: dict[str, str]) -> str:
    for name, given in names.items():
        text = text.replace(name, given)
    return text


def _key_steps() -> list[list[int]]:
    """Return what is added to the key before each round, as int64, a list a lane: lane 0 takes word 1 first."""
    table = []
    for lane in range(2):
        words = [(lane + n + 1) % 2 for n in range(philox.ROUNDS)]
        sums = [(n * philox.KEY_STEPS[word] & _LOW) << 32 * word for n, word in enumerate(words)]
        table.append([number - 2**64 if number >= 2**63 else number for number in sums])
    return table


def _shifts() -> list[list[int]]:
    return [[32 * ((lane + n + 1) % 2) for n in range(philox.ROUNDS)] for lane in range(2)]


def _listed(table: Sequence[Sequence[int]], by_round: bool) -> str:
    """Return the numbers of a table [lane][round] as a literal, by rounds first or by lanes first."""
    rows = zip(*table, strict=True) if by_round else table
    return "{" + ", ".join(str(number) for row in rows for number in row) + "}"
