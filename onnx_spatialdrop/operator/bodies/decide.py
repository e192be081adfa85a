"""From words to dropped entries, as function bodies do it: which dialect is asked for, and the test of each.

For 64-bit bodies (words are uint64) and for those on int32. A name that starts with $ belongs to one dialect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from onnx_spatialdrop.operator.dialects import DIALECTS, WordTest

__all__ = ["KIND", "comparison", "depends_on_type", "guard", "is_guarded_by_step"]

# Types by the bits of their significands, fewest first: how many of the probes below survive in each.
_BY_PRECISION: Final = ("bfloat16", "float16", "float32", "float64")

#: `kind`, which of the four types X has. ONNX Runtime takes some pairs of casts out that would round, where nothing
#: stands between the two; here a Reshape does.
KIND: Final = """
  probes = Constant <value = double[3] {1.001953125, 1.00000095367431640625, 1.000000000931322574615478515625}> ()
  probes_t = CastLike (probes, X)
  probes_kept = Reshape (probes_t, all)
  probes_d = Cast <to = 11> (probes_kept)
  survives = Equal (probes_d, probes)
  survives_i = Cast <to = 7> (survives)
  kind = ReduceSum <keepdims = 1> (survives_i)
"""

# The name is looked up with the one operator that reads strings in every runtime, opset and evaluator. A name that is
# not there finds nothing: no entries are drawn, and the last Reshape fails.
_GUARD: Final = """
  rng_name = Constant <value_string: string = @rng> ()
  rng_names, rng_first = Unique (rng_name)
  found_f = TfIdfVectorizer <ATTRIBUTES> (rng_names)
  found = Cast <to = 7> (found_f)
"""

_KNOWN: Final = """
  $known_kinds = Constant <value_ints = [KNOWN]> ()
  $known = Gather ($known_kinds, kind)
  $drawn = Mul ($asked, $known)
  $row = Mul (row, $drawn)
"""

_SHARES: Final = {
    "below": """
  $ratio_d = Cast <to = 11> (ratio_)
  $whole_d = Constant <value = double {1.0}> ()
  $share_d = Sub ($whole_d, $ratio_d)
  $share = Cast <to = 1> ($share_d)
""",
    "own_type": """
  $ratio_t = CastLike (ratio_, X)
  $ratio_kept = Reshape ($ratio_t, one)
  $share = Cast <to = 1> ($ratio_kept)
""",
    "plain": "",
}


# An integer lies below a number iff it lies below the number rounded up. Both have 24 bits, so float32 is exact.
_LIMIT_WIDE: Final = """
  $limit = Mul ($share, $levels)
"""
_LIMIT_INT32: Final = """
  $scaled = Mul ($share, $levels)
  $limit_f = Ceil ($scaled)
  $limit = Cast <to = 6> ($limit_f)
"""

_SHIFT: Final = """
  $shifted = BitShift <direction = "RIGHT"> ($words, $shift)
"""
_FIELD: Final = """
  $number_u = BitwiseAnd ($shifted, $field)
"""
_NUMBER: Final = """
  $number = Cast <to = 1> ($number_u)
"""

# Division is left out where nothing is shifted: it would go through float32 in some runtimes.
_CUT_INT32: Final = """
  $cleared = BitwiseAnd ($words, $upper)
  $moved = Div ($cleared, $span)
  $number = BitwiseAnd ($moved, $field)
"""

_CUT_INT32_IN_PLACE: Final = """
  $number = BitwiseAnd ($words, $field)
"""


def guard(rngs: Sequence[str]) -> str:
    """Return the lines that read the attribute ``rng``: `NAME_row` is `row` for the dialect that it names, else 0.

    So it is for the dialect that it names, where that has no test for X's type: nothing is drawn. Where
    is_guarded_by_step says so, `found` is 1 or 0, and there is one name less.
    """
    pool = ", ".join(f'"{rng}"' for rng in rngs)
    indexes = ", ".join(str(index) for index in range(len(rngs)))
    text = _GUARD.replace(
        "ATTRIBUTES",
        'mode = "TF", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0, ngram_counts = [0], '
        f"ngram_indexes = [{indexes}], pool_strings = [{pool}]",
    )
    if is_guarded_by_step(rngs):
        return text
    for index, rng in enumerate(rngs):
        if len(rngs) > 1:
            text += f"  {rng}_place = Constant <value_ints = [{index}]> ()\n"
            text += f"  {rng}_asked = Gather (found, {rng}_place)\n"
        if depends_on_type(rng):
            known = ", ".join(str(int(name in DIALECTS[rng].tests)) for name in _BY_PRECISION)
            text += _KNOWN.replace("$", f"{rng}_").replace("KNOWN", known)
        else:
            text += f"  {rng}_row = Mul (row, {rng}_asked)\n"
    return text if len(rngs) > 1 else text.replace(f"{rngs[0]}_asked", "found")


def is_guarded_by_step(rngs: Sequence[str]) -> bool:
    """Return whether entries are taken from words by a step of `found`: 1, or else 0, which stops the run."""
    return list(rngs) == ["philox"]


def depends_on_type(rng: str) -> bool:
    """Return whether the dialect's test is another for some types of X."""
    return len({DIALECTS[rng].tests.get(name) for name in _BY_PRECISION}) > 1


def comparison(rng: str, *, wide: bool, dtype: str | None = None) -> str:
    """Return the lines that make `$dropped`, bool, of `$words`.

    Args:
        rng: the dialect.
        wide: words are uint64; else int32.
        dtype: NumPy's name of X's type; None leaves it to `kind`, where the dialect's test depends on it.
    """
    dialect = DIALECTS[rng]
    open_ = dtype is None and depends_on_type(rng)
    names = _BY_PRECISION if open_ else (dtype or "float32",)
    tests = [dialect.tests.get(name, dialect.tests["float32"]) for name in names]
    constants = "".join(_constant(*constant) for constant in _constants(tests, wide))
    share = "below" if dialect.keeps_below else "own_type" if dialect.own_type else "plain"
    limit = _LIMIT_WIDE if wide else _LIMIT_INT32
    text = _SHARES[share] + constants + (_cut_wide if wide else _cut_int32)(tests) + limit
    text = text.replace("$share", "ratio_") if share == "plain" else text
    if dialect.keeps_below:
        return text + "  $kept = Less ($number, $limit)\n  $dropped = Not ($kept)\n"
    return text + "  $dropped = Less ($number, $limit)\n"


def _cut_wide(tests: Sequence[WordTest]) -> str:
    """Return the lines that make `$number`, without those that would change nothing."""
    shifts = any(test.shift for test in tests)
    cuts = any(test.shift + test.bits < 32 for test in tests)
    shift = _SHIFT if cuts else _SHIFT.replace("$shifted", "$number_u")
    field = _FIELD if shifts else _FIELD.replace("$shifted", "$words")
    return (shift if shifts else "") + (field if cuts else "") + _NUMBER


def _cut_int32(tests: Sequence[WordTest]) -> str:
    return _CUT_INT32 if any(test.shift for test in tests) else _CUT_INT32_IN_PLACE


def _constants(tests: Sequence[WordTest], wide: bool) -> list[tuple[str, str, list[int]]]:
    """Return names, types and values of what the test of each kind needs."""
    fields = [(1 << test.bits) - 1 for test in tests]
    levels = ("levels", "float", [1 << test.bits for test in tests])
    if wide:
        return [("shift", "uint64", [test.shift for test in tests]), ("field", "uint64", fields), levels]
    uppers, spans = [-(1 << test.shift) for test in tests], [1 << test.shift for test in tests]
    return [("upper", "int32", uppers), ("span", "int32", spans), ("field", "int32", fields), levels]


def _constant(name: str, kind: str, values: Sequence[int]) -> str:
    """Return the lines that make one constant, of several the one of X's type."""
    listed = ", ".join(str(value) for value in values)
    if len(values) == 1:
        return f"  ${name} = Constant <value = {kind} {{{listed}}}> ()\n"
    return (
        f"  ${name}_by_kind = Constant <value = {kind}[{len(values)}] {{{listed}}}> ()\n"
        f"  ${name} = Gather (${name}_by_kind, kind)\n"
    )
