"""The words of each dialect in 64-bit integers, as function bodies draw them: helpers, and the lines that call them.

A name that starts with $ belongs to one dialect; the assembly puts the dialect's own prefix there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from onnx_spatialdrop.operator.bodies import rounds, strata, threefry
from onnx_spatialdrop.operator.dialects import DIALECTS, KERAS_TF_KEY, KERAS_TF_MODULUS, Words

__all__ = ["ROW", "draws", "helpers", "is_blocked", "words"]

#: The length `row` of a row of mask entries.
ROW: Final = "  row = Div (entries, rows)"

_DRAWS: Final = f"""
  tosses = Constant <value = float[62] {{{", ".join(["1"] * 62)}}}> ()
  half_f = Constant <value_float = 0.5> ()
  yes = Constant <value = bool {{1}}> ()
  coins = Where (negative, tosses, half_f)
  heads_f, heads = Dropout (coins, half_f, yes)
  heads_i = Cast <to = 7> (heads)
  powers = Constant <value_ints = [{", ".join(str(2**n) for n in range(62))}]> ()
  nonce = MatMul (heads_i, powers)
  draws = Where (negative, nonce, checked)
{ROW}
  seed_i = Constant <value_int: int = @seed> ()
{rounds.CONSTANTS}
"""

# Four words a block; a row takes whole blocks and leaves what it does not need.
_BLOCKS: Final = """
  $last = Squeeze (ROW)
  $four = Constant <value_int = 4> ()
  $offset = Range (first, $last, $four)
  $block = Div ($offset, $four)
  $lane = Constant <value = bool[2, 1, 1, 1] {1, 0}> ()
"""

# An axis that a column does not have stops the run of a node that names more strata than one.
_COLUMN: Final = """
  column = Unsqueeze (draws, one)
  [strata_are_unknown_to_the_function_attach_again] draw = Concat <axis: int = @strata> (column)
"""
_COLUMN_OF_STRATA: Final = """
  draw = Unsqueeze (draws, one)
"""

_COUNTER: Final = """
  $counter = Where ($lane, $block, draw)
"""

_JOIN: Final = """
  $words = Concat <axis = 1> ($s_10, $c_10)
"""

# Seed and step, less whole moduli, are the words 0 and 2 of a counter; its block is key and counter of the draw.
_MIX: Final = f"""
  $modulus = Constant <value_int = {KERAS_TF_MODULUS}> ()
  $seed_rest = Mod (seed_i, $modulus)
  $draw_rest = Mod (draw, $modulus)
  $mix_counter = Where ($lane, $seed_rest, $draw_rest)
  $mix_key = Constant <value_int = {KERAS_TF_KEY[0] + (KERAS_TF_KEY[1] << 32)}> ()
"""
_MIXED: Final = """
  $upper_mixed = BitShift <direction = "LEFT"> ($mix_c_10, half)
  $mixed_u = BitwiseOr ($mix_s_10, $upper_mixed)
  $mixed = Cast <to = 7> ($mixed_u)
  $key, $upper = Split <axis = 0, num_outputs = 2> ($mixed)
  $counter = Where ($lane, $block, $upper)
"""

_THREEFRY: Final = """
  $last = Squeeze (ROW)
  $index = Range (first, $last, unit)
  $low_i = Constant <value_int = 4294967295> ()
  $span = Constant <value_int = 4294967296> ()
  $c0 = Div ($index, $span)
  $c1 = BitwiseAnd ($index, $low_i)
  $k0 = BitwiseAnd (seed_i, $low_i)
  $k1 = BitwiseAnd (draw, $low_i)
  $x0, $x1 = DOMAIN.Threefry2x32 ($c0, $c1, $k0, $k1)
  $words_i = BitwiseXor ($x0, $x1)
  $words = Cast <to = 13> ($words_i)
"""


def _philox(scan: bool, balanced: bool) -> str:
    counter = strata.COUNTER if balanced else _COUNTER
    return _BLOCKS + counter + rounds.lines("seed_i", scan=scan) + _JOIN


def _keras_tf(scan: bool, _: bool) -> str:
    mix = rounds.lines("$key", scan=scan).replace("$", "$mix_")
    return _BLOCKS + _MIX + mix + _MIXED + rounds.lines("$key", scan=scan) + _JOIN


_WORDS: Final[dict[Words, Callable[[bool, bool], str]]] = {
    "philox": _philox,
    "keras_tf": _keras_tf,
    "threefry": lambda _scan, _balanced: _THREEFRY,
}


def draws(*, balanced: bool) -> str:
    """Return the lines that all dialects share.

    They make `draws`, one number a row, and `draw`, the same in a column; the length `row` of a row; and `seed_i`.

    Args:
        balanced: the function draws by ``strata``; else it fails where that is not 1.
    """
    return _DRAWS + (_COLUMN_OF_STRATA if balanced else _COLUMN)


def helpers(rngs: Sequence[str]) -> list[str]:
    """Return the helper functions that the words of these dialects call, each after those that it calls."""
    return threefry.helpers() if any(DIALECTS[rng].words == "threefry" for rng in rngs) else []


def words(rng: str, *, scan: bool, balanced: bool) -> str:
    """Return the lines that draw `$words`, uint64 below 2**32, from what ``draws`` makes, ROW a row.

    Where the generator makes blocks of four words, they have the shape [2, 2, rows, blocks], a block's words in the
    first two axes; elsewhere [rows, ROW].

    Args:
        rng: the dialect.
        scan: see rounds.lines.
        balanced: the words of the cycles follow, in rows of their own; see strata.DROPPED.
    """
    return _WORDS[DIALECTS[rng].words](scan, balanced)


def is_blocked(rng: str) -> bool:
    """Return whether the dialect's words come in blocks of four."""
    return DIALECTS[rng].words != "threefry"
