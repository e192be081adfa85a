"""What every function body has around its words: shapes and rows before them, the values after them.

In ONNX's textual syntax. Nothing branches: random ops inside an If body share one draw in ONNX Runtime, and trainers
abort on If.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DRAWN", "HEAD", "HEAD_SINGLE", "IN_FLOAT", "IN_T", "ROWS", "ROWS_SINGLE", "TAIL"]

_START: Final = """
SpatialDropout <axes, ratio, seed, scale: float = 0.0, rng: string = "philox", strata: int = 1>
  (X, training_mode, step) => (Y, mask)
{
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  all = Constant <value_ints = [-1]> ()
  first = Constant <value_int = 0> ()
  unit = Constant <value_int = 1> ()
  training = Squeeze (training_mode)
  ratio_ = Constant <value_float: float = @ratio> ()

  shape = Shape (X)
  axes_ = Constant <value_ints: ints = @axes> ()
"""

HEAD: Final = (
    _START
    + """
  ones_at_axes = Pow (axes_, zero)
  mask_shape = ScatterElements <axis = 0> (shape, axes_, ones_at_axes)

  steps = Reshape (step, all)
"""
)

# For runtimes that have to know all shapes before they run, as far as they do not follow from X's: no shape depends on
# what `step` and `training_mode` hold, so there is one step, and idle runs draw as well. Sizes that nobody knows yet
# are only multiplied and added to (tract's other operators take none).
HEAD_SINGLE: Final = (
    _START
    + """
  axis_count = Shape (axes_)
  zeros_at_axes = Expand (zero, axis_count)
  rank = Shape (shape)
  ones = Expand (one, rank)
  counted = ScatterElements <axis = 0> (ones, axes_, zeros_at_axes)
  shared = Sub (ones, counted)
  counted_sizes = Mul (shape, counted)
  mask_shape = Add (counted_sizes, shared)

  [step_must_have_1_element] steps = Reshape (step, one)
  rows = Constant <value_ints = [1]> ()
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

# How R rows share out the mask; two Reshapes fail, and so stop the run, on a refused step. A single negative one makes
# `negative` true. There is a row at least, by step 0 where there are none; an idle run draws one entry of one row. All
# of this is constant where the step is known.
ROWS: Final = """
  all_rows = Shape (steps)
  is_single = Equal (all_rows, one)
  batch = Slice (mask_shape, zero, one)
  rows_allowed = Where (is_single, one, batch)
  [step_must_have_1_or_N_elements] matched = Reshape <allowzero = 1> (steps, rows_allowed)
  below = Less (matched, zero)
  below_i = Cast <to = 7> (below)
  negatives = ReduceSum <keepdims = 1> (below_i)
  negative = Cast <to = 9> (negatives)
  unsigned_rows = Where (negative, one, all_rows)
  [step_has_a_negative_element] every_step = Reshape <allowzero = 1> (matched, unsigned_rows)
  some_rows = Max (all_rows, one)
  rows = Where (training, some_rows, one)
  some_step = Concat <axis = 0> (every_step, zero)
  checked = Slice (some_step, zero, rows)
  entry_shape = Where (training, mask_shape, one)
  entries = ReduceProd <keepdims = 1> (entry_shape)
"""

# ONNX Runtime's Dropout refuses a ratio of 1, so the draw stops short of it and `some` finishes the job. Unseeded, it
# starts every run from the next small number, whose first draw is always near 0: the first draws are thrown away.
DRAWN: Final = """
  first_draws = Constant <value_ints = [32]> ()
  entries = ReduceProd <keepdims = 1> (mask_shape)
  thrown_and_kept = Add (entries, first_draws)
  step_sum = ReduceSum <keepdims = 1> (steps)
  any_f = Cast <to = 1> (step_sum)
  coins = Expand (any_f, thrown_and_kept)
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
