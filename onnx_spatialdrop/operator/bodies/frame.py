"""What every function body has around its words: shapes and rows before them, the values after them.

In ONNX's textual syntax. Nothing branches: random ops inside an If body share one draw in ONNX Runtime, and trainers
abort on If.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DRAWN", "HEAD", "HEAD_SINGLE", "IN_FLOAT", "IN_T", "ROWS", "ROWS_SINGLE", "TAIL"]

_START: Final = """
SpatialDropout <axes, ratio, seed, scale: float = 0.0, rng: string = "philox"> (X, training_mode, step) => (Y, mask)
{
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  all = Constant <value_ints = [-1]> ()
  training = Squeeze (training_mode)
  ratio_ = Constant <value_float: float = @ratio> ()

  shape = Shape (X)
  axes_ = Constant <value_ints: ints = @axes> ()
  axis_count = Shape (axes_)
"""

HEAD: Final = (
    _START
    + """
  ones_at_axes = Expand (one, axis_count)
  mask_shape = ScatterElements <axis = 0> (shape, axes_, ones_at_axes)

  steps = Reshape (step, all)
  rows = Shape (steps)
  step_sum = ReduceSum <keepdims = 1> (steps)
  ever = Equal (step_sum, step_sum)
  ever_f = Cast <to = 1> (ever)
"""
)

# For runtimes that have to know all shapes before they run, as far as they do not follow from X's: no shape depends on
# what `step` and `training_mode` hold, so there is one step, and idle runs draw as well. Sizes that nobody knows yet
# are only multiplied and added to (tract's other operators take none).
HEAD_SINGLE: Final = (
    _START
    + """
  zeros_at_axes = Expand (zero, axis_count)
  rank = Shape (shape)
  ones = Expand (one, rank)
  counted = ScatterElements <axis = 0> (ones, axes_, zeros_at_axes)
  shared = Sub (ones, counted)
  counted_sizes = Mul (shape, counted)
  mask_shape = Add (counted_sizes, shared)

  [step_must_have_1_element] steps = Reshape (step, one)
  rows = Constant <value_ints = [1]> ()
  ever = Equal (steps, steps)
  ever_f = Cast <to = 1> (ever)
"""
)
ROWS_SINGLE: Final = """
  negative = Less (steps, zero)
  checked = Identity (steps)
  entry_shape = Identity (mask_shape)
  entry_zeros = Expand (zero, entry_shape)
  flat = Reshape (entry_zeros, all)
  entries = Shape (flat)
"""

# How R rows share out the mask; `checked` and `entry_shape` fail to form, and so stop the run, on a refused step.
ROWS: Final = """
  negative = Less (steps, zero)
  negative_i = Cast <to = 7> (negative)
  negatives = ReduceSum <keepdims = 1> (negative_i)
  several = Greater (rows, one)
  surplus = Where (several, negatives, zero)
  checked_rows = Add (rows, surplus)
  [step_has_a_negative_element] checked = Reshape <allowzero = 1> (steps, checked_rows)
  batch = Slice (mask_shape, zero, one)
  [step_must_have_1_or_N_elements] step_of_sample = Expand (checked, batch)
  [step_must_have_1_or_N_elements_] matched = Reshape <allowzero = 1> (step_of_sample, batch)
  matched_batch = Shape (matched)
  rank = Shape (shape)
  inner = Slice (mask_shape, one, rank)
  drawn_shape = Concat <axis = 0> (matched_batch, inner)
  inner_rank = Shape (inner)
  inner_ones = Expand (one, inner_rank)
  idle_shape = Concat <axis = 0> (rows, inner_ones)
  entry_shape = Where (training, drawn_shape, idle_shape)
  entries = ReduceProd <keepdims = 1> (entry_shape)
"""

# ONNX Runtime's Dropout refuses a ratio of 1, so the draw stops short of it and `some` finishes the job. Unseeded, it
# starts every run from the next small number, whose first draw is always near 0: the first draws are thrown away.
DRAWN: Final = """
  first_draws = Constant <value_ints = [32]> ()
  entries = ReduceProd <keepdims = 1> (mask_shape)
  thrown_and_kept = Add (entries, first_draws)
  coins = Expand (ever_f, thrown_and_kept)
  below_one = Constant <value_float = 0.99999994> ()
  ratio_d = Min (ratio_, below_one)
  heads_f, heads_all = Dropout (coins, ratio_d, training)
  heads_flat = Slice (heads_all, first_draws, thrown_and_kept)
  heads = Reshape <allowzero = 1> (heads_flat, mask_shape)
  one_f = Constant <value_float = 1.0> ()
  some = Less (ratio_, one_f)
  keep = And (heads, some)
  drop = Not (keep)
"""

TAIL: Final = """
  zero_f = Constant <value_float = 0.0> ()
  scale_ = Constant <value_float: float = @scale> ()
  unset = Equal (scale_, zero_f)
  scale_d = Cast <to = 11> (scale_)
  one_d = Constant <value = double {1.0}> ()
  ratio_d_ = Cast <to = 11> (ratio_)
  kept_d = Sub (one_d, ratio_d_)
  inverse = Div (one_d, kept_d)
  factor_d = Where (unset, inverse, scale_d)
  gone = And (drop, training)
  kept = Not (gone)
  mask = Expand (kept, mask_shape)
  factor_t = CastLike (factor_d, X)
"""

# ONNX Runtime's Where makes +0 of a -0 in its second input, but not in its third: values have to come last, and X,
# which may hold a -0 whether training or not, can be selected only once. So idle runs multiply by one. And its
# optimiser swaps the inputs of Where(Not(c), a, b), so the condition must not come straight from a Not.
IN_T: Final = """
  one_t = CastLike (one_d, X)
  factor = Where (training, factor_t, one_t)
  nothing = CastLike (zero_f, X)
  scaled = Mul (X, factor)
  Y = Where (gone, nothing, scaled)
}
"""

# Products of two float16 or bfloat16 numbers are exact in float32, so they are still rounded once.
IN_FLOAT: Final = """
  X_f = Cast <to = 1> (X)
  one_f_ = Cast <to = 1> (one_d)
  factor_f = Cast <to = 1> (factor_t)
  factor = Where (training, factor_f, one_f_)
  scaled = Mul (X_f, factor)
  Y_f = Where (gone, zero_f, scaled)
  Y = CastLike (Y_f, X)
}
"""
