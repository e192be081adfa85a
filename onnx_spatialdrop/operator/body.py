"""The operator as model-local functions: standard ONNX nodes that draw the same bits where no kernel is installed.

The texts are in ONNX's textual syntax and never branch: random ops inside an If body share one draw in ONNX
Runtime, and trainers abort on If. They never touch a model; passes/attach.py puts them there.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import onnx.parser
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import philox, spec

__all__ = ["DRAWN_OPSET", "MIN_OPSET", "OWN_FUNCTIONS", "functions"]

#: From this opset on a body draws the operator's own bits; below, ONNX lacks BitwiseXor and BitwiseAnd.
MIN_OPSET: Final = 18
#: From this opset on a body can at least draw from the runtime's generator; below, it cannot follow X's type.
DRAWN_OPSET: Final = 15

# ONNX Runtime multiplies uint64 from 1.21 on only. int64 products wrap to the same 64 bits.
_ROUND: Final = f"""
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

HEAD: Final = """
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
  ones_at_axes = Expand (one, axis_count)
  mask_shape = ScatterElements <axis = 0> (shape, axes_, ones_at_axes)

  steps = Reshape (step, all)
  rows = Shape (steps)
  step_sum = ReduceSum <keepdims = 1> (steps)
  ever = Equal (step_sum, step_sum)
  ever_f = Cast <to = 1> (ever)
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
"""

_WORDS: Final = """
  width = Constant <value_ints = [62]> ()
  coins = Expand (ever_f, width)
  half_f = Constant <value_float = 0.5> ()
  yes = Constant <value = bool {1}> ()
  heads_f, heads = Dropout (coins, half_f, yes)
  heads_i = Cast <to = 7> (heads)
  powers = Constant <value_ints = [POWERS]> ()
  terms = Mul (heads_i, powers)
  nonce = ReduceSum <keepdims = 1> (terms)
  draws = Where (negative, nonce, checked)

  low = Constant <value = uint64 {4294967295}> ()
  half = Constant <value = uint64 {32}> ()
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
  block_i = Range (first, last, unit)
  block = Cast <to = 13> (block_i)
  c0_0 = BitwiseAnd (block, low)
  c1_0 = BitShift <direction = "RIGHT"> (block, half)
  draws_u = Cast <to = 13> (draws)
  draw = Unsqueeze (draws_u, one)
  c2_0 = BitwiseAnd (draw, low)
  c3_0 = BitShift <direction = "RIGHT"> (draw, half)
  seed_i = Constant <value_int: int = @seed> ()
  key = Cast <to = 13> (seed_i)
KEYS
ROUNDS
  two = Constant <value_ints = [2]> ()
  q0 = Unsqueeze (c0_10, two)
  q1 = Unsqueeze (c1_10, two)
  q2 = Unsqueeze (c2_10, two)
  q3 = Unsqueeze (c3_10, two)
  words = Concat <axis = 2> (q0, q1, q2, q3)
  eight = Constant <value = uint64 {8}> ()
  fractions_u = BitShift <direction = "RIGHT"> (words, eight)
  fractions = Cast <to = 7> (fractions_u)
  steps_of_24 = Constant <value_float = 16777216.0> ()
  ratio_24 = Mul (ratio_, steps_of_24)
  threshold_f = Ceil (ratio_24)
  threshold = Cast <to = 7> (threshold_f)
  drop_blocks = Less (fractions, threshold)
  padded_row = Mul (blocks, four)
  padded_shape = Concat <axis = 0> (rows, padded_row)
  drop_padded = Reshape <allowzero = 1> (drop_blocks, padded_shape)
  drop_rows = Slice (drop_padded, zero, row, one)
  drop = Reshape <allowzero = 1> (drop_rows, entry_shape)
"""

# ONNX Runtime's Dropout refuses a ratio of 1, so the draw stops short of it and `some` finishes the job. Unseeded, it
# starts every run from the next small number, whose first draw is always near 0: the first draws are thrown away.
_DRAWN: Final = """
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

_KEY_WORDS: Final = ("BitwiseAnd (key, low)", 'BitShift <direction = "RIGHT"> (key, half)')

#: Names of the functions that this module writes, all in the operator's domain.
OWN_FUNCTIONS: Final = frozenset({spec.OP_TYPE, "PhiloxRound"})


def _keys() -> str:
    """Return the key schedule: one vector of ten for each key word, cut into its elements."""
    lines = []
    for word, (part, increment) in enumerate(zip(_KEY_WORDS, philox.KEY_STEPS, strict=True)):
        steps = ", ".join(str(n * increment) for n in range(philox.ROUNDS))
        names = ", ".join(f"k{word}_{n}" for n in range(philox.ROUNDS))
        lines += [
            f"  k{word} = {part}",
            f"  k{word}_i = Cast <to = 7> (k{word})",
            f"  k{word}_steps = Constant <value_ints = [{steps}]> ()",
            f"  k{word}_sums_i = Add (k{word}_i, k{word}_steps)",
            f"  k{word}_sums = Cast <to = 13> (k{word}_sums_i)",
            f"  k{word}_all = BitwiseAnd (k{word}_sums, low)",
            f"  {names} = Split <axis = 0, num_outputs = {philox.ROUNDS}> (k{word}_all)",
        ]
    return "\n".join(lines)


def _rounds() -> str:
    lines = []
    for n in range(philox.ROUNDS):
        after = ", ".join(f"{name}_{n + 1}" for name in ("c0", "c1", "c2", "c3"))
        before = ", ".join(f"{name}_{n}" for name in ("c0", "c1", "c2", "c3", "k0", "k1"))
        lines.append(f"  {after} = {spec.DOMAIN}.PhiloxRound ({before})")
    return "\n".join(lines)


def _texts(opset: int, in_float: bool) -> list[str]:
    tail = TAIL + (IN_FLOAT if in_float else IN_T)
    if opset < MIN_OPSET:
        return [HEAD + _DRAWN + tail]
    powers = ", ".join(str(2**n) for n in range(62))
    # Helpers come first: onnx's ReferenceEvaluator resolves functions in the order of the file.
    return [
        _ROUND,
        HEAD + ROWS + _WORDS.replace("POWERS", powers).replace("KEYS", _keys()).replace("ROUNDS", _rounds()) + tail,
    ]


@cache
def _protos(opset: int, in_float: bool) -> tuple[onnx.FunctionProto, ...]:
    header = f'<domain: "{spec.DOMAIN}", opset_import: ["": {opset}, "{spec.DOMAIN}": {spec.VERSION}]>'
    return tuple(onnx.parser.parse_function(header + text) for text in _texts(opset, in_float))


def functions(opset: int, *, in_float: bool = False, where: str = "the model") -> list[ir.Function]:
    """Return new functions that define SpatialDropout in standard ops, helpers first.

    Args:
        opset: the version of ONNX's default domain that the model imports. From 18 on the function draws the
            operator's own bits, and a negative ``step`` takes 62 bits from the runtime's generator. For 15 to 17 it
            is Dropout on ones: the right distribution, from the runtime's generator, with ``step`` and ``seed`` unused.
        in_float: compute values in float32 and round them to X's type at the end: for bfloat16, which runtimes cannot
            multiply. The same bits for float16, bfloat16 and float32 (but for the payloads of NaNs); wrong for double.
        where: what asks, for error messages.

    Raises:
        FormError: the opset is below 15.
    """
    if opset < DRAWN_OPSET:
        raise FormError(
            f"{where}: imports opset {opset}, and a function body needs {DRAWN_OPSET} or newer; "
            "convert the model's opset first, or expand with form='uniform'"
        )
    return [ir.serde.deserialize_function(proto) for proto in _protos(opset, in_float)]
