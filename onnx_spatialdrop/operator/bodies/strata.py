"""Balanced draws in function bodies: the counters of cycles, and ranks in them. operator/stratified.py is the rule.

In int32 numbers are divided half by half, as by hand: no number that is divided reaches 2**24 less the divisor, so that
a quotient in float32, rounded down, is right. A name that starts with $ belongs to one dialect.
"""

from __future__ import annotations

from typing import Final

__all__ = ["COUNTER", "CYCLES_INT32", "DROPPED", "DROPPED_INT32"]

#: Lines that make `$counter` of the draws and, in rows that follow, of their cycles.
COUNTER: Final = """
  strata_ = Constant <value_int: int = @strata> ()
  $cycle = Div (draw, strata_)
  $place = Mod (draw, strata_)
  $cycle_bit = Constant <value_int = -9223372036854775808> ()
  $marked = BitwiseOr ($cycle, $cycle_bit)
  $draw_and_cycle = Concat <axis = 0> (draw, $marked)
  $counter = Where ($lane, $block, $draw_and_cycle)
"""

#: Lines that make `$dropped` of `$words`, those of the draws and those of their cycles: a word w drops its entry, whose
#: rank is r, iff r 2**24 + (w >> 8) is less than ratio strata 2**24. With one stratum all ranks are 0. The Slices have
#: names: ONNX Runtime 1.20 may fuse them, and calls what it makes of two nodes without names by one name.
DROPPED: Final = """
  $rows_axis = Constant <value_ints = [2]> ()
  $last_row = Constant <value_ints = [9223372036854775807]> ()
  [$own_words] $own = Slice ($words, zero, rows, $rows_axis)
  [$order_words] $order_u = Slice ($words, rows, $last_row, $rows_axis)
  $order = Cast <to = 7> ($order_u)
  $turn = Div ($order, strata_)
  $c = Mod ($order, strata_)
  $less = Sub (strata_, unit)
  $factors = Max ($less, unit)
  $a_less = Mod ($turn, $factors)
  $a = Add ($a_less, unit)
  $moved = Mul ($a, $place)
  $moved_c = Add ($moved, $c)
  $rank = Mod ($moved_c, strata_)
  $levels_i = Constant <value_int = 16777216> ()
  $above = Mul ($rank, $levels_i)
  $eight = Constant <value = uint64 {8}> ()
  $shifted = BitShift <direction = "RIGHT"> ($own, $eight)
  $number_i = Cast <to = 7> ($shifted)
  $sum = Add ($above, $number_i)
  $number = Cast <to = 11> ($sum)
  $ratio_d = Cast <to = 11> (ratio_)
  $levels = Constant <value = double {16777216}> ()
  $strata_d = Cast <to = 11> (strata_)
  $share = Mul ($ratio_d, $strata_d)
  $limit = Mul ($share, $levels)
  $dropped = Less ($number, $limit)
"""


def _divided(high: str, low: str, by: str, prefix: str) -> str:
    """Return the lines that divide the number of two halves: PREFIX1 and PREFIX0, the quotient's, and PREFIX_rest."""
    return f"""
  {prefix}1 = Div ({high}, {by})
  {prefix}_times1 = Mul ({prefix}1, {by})
  {prefix}_rest1 = Sub ({high}, {prefix}_times1)
""" + _next_half(f"{prefix}_rest1", low, by, f"{prefix}0", f"{prefix}_rest")


def _next_half(rest: str, half: str, by: str, quotient: str, next_rest: str) -> str:
    return f"""
  {quotient}_above = Mul ({rest}, radix_i)
  {quotient}_of = Add ({quotient}_above, {half})
  {quotient} = Div ({quotient}_of, {by})
  {quotient}_times = Mul ({quotient}, {by})
  {next_rest} = Sub ({quotient}_of, {quotient}_times)
"""


#: Lines that make the words `both_low` and `both_high` of the draws and then of their cycles, in `both_rows` rows, and
#: `place`, of `low` and `high`.
CYCLES_INT32: Final = f"""
  strata_l = Constant <value_int: int = @strata> ()
  strata_ = Cast <to = 6> (strata_l)
  radix_i = Constant <value = int32 {{65536}}> ()
  lower_i = Constant <value = int32 {{65535}}> ()
  step3 = DOMAIN.HighHalf (high)
  step2 = BitwiseAnd (high, lower_i)
  step1 = DOMAIN.HighHalf (low)
  step0 = BitwiseAnd (low, lower_i)
{_divided("step3", "step2", "strata_", "cycle_h")}
{_next_half("cycle_h_rest", "step1", "strata_", "cycle_l1", "cycle_rest1")}
{_next_half("cycle_rest1", "step0", "strata_", "cycle_l0", "place_of_row")}
  cycle_h = Mul (cycle_h1, radix_i)
  cycle_h_sum = Add (cycle_h, cycle_h0)
  cycle_bit = Constant <value = int32 {{-2147483648}}> ()
  cycle_high = BitwiseOr (cycle_h_sum, cycle_bit)
  cycle_l = Mul (cycle_l1, radix_i)
  cycle_low = Add (cycle_l, cycle_l0)
  both_low = Concat <axis = 0> (low, cycle_low)
  both_high = Concat <axis = 0> (high, cycle_high)
  both_rows = Shape (both_low)
  row_column = Constant <value_ints = [0, 2]> ()
  place = Unsqueeze (place_of_row, row_column)
"""

#: The same as DROPPED, of int32 words; the last comparison is one with 0.
DROPPED_INT32: Final = f"""
  $rows_axis = Constant <value_ints = [2]> ()
  $last_row = Constant <value_ints = [9223372036854775807]> ()
  $own = Slice ($words, zero, rows, $rows_axis)
  $order = Slice ($words, rows, $last_row, $rows_axis)
  $order_high = DOMAIN.HighHalf ($order)
  $order_low = BitwiseAnd ($order, lower_i)
{_divided("$order_high", "$order_low", "strata_", "$turn")}
  $less = Sub (strata_, unit_i)
  $factors = Max ($less, unit_i)
{_divided("$turn1", "$turn0", "$factors", "$gone")}
  $a = Add ($gone_rest, unit_i)
  $moved = Mul ($a, place)
  $moved_c = Add ($moved, $turn_rest)
  $moved_turns = Div ($moved_c, strata_)
  $moved_times = Mul ($moved_turns, strata_)
  $rank = Sub ($moved_c, $moved_times)
  $levels_i = Constant <value = int32 {{16777216}}> ()
  $above = Mul ($rank, $levels_i)
  $upper = Constant <value = int32 {{-256}}> ()
  $span = Constant <value = int32 {{256}}> ()
  $field = Constant <value = int32 {{16777215}}> ()
  $cleared = BitwiseAnd ($own, $upper)
  $shifted = Div ($cleared, $span)
  $number_i = BitwiseAnd ($shifted, $field)
  $number = Add ($above, $number_i)
  $ratio_d = Cast <to = 11> (ratio_)
  $levels = Constant <value = double {{16777216}}> ()
  $strata_d = Cast <to = 11> (strata_)
  $share = Mul ($ratio_d, $strata_d)
  $limit_d = Mul ($share, $levels)
  $limit_up = Ceil ($limit_d)
  $limit = Cast <to = 6> ($limit_up)
  $over = Sub ($number, $limit)
  $dropped = Less ($over, zero_i)
"""
