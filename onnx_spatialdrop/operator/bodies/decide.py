"""From words to dropped entries, as function bodies do it: which dialect is asked for, and the test of each.

For 64-bit bodies (words are uint64) and for those on int32. A name that starts with $ belongs to one dialect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from onnx_spatialdrop.operator.dialects import DIALECTS, WordTest

__all__ = ["KIND", "comparison", "depends_on_type", "guard"]

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
  found_i = Cast <to = 7> (found_f)
  found = Add (found_i, rng_first)
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


_LIMIT: Final = """
  $scaled = Mul ($share, $levels)
  $limit_f = Ceil ($scaled)
  $limit = Cast <to = INTEGER> ($limit_f)
"""

_CUT_WIDE: Final = """
  $shifted = BitShift <direction = "RIGHT"> ($words, $shift)
  $number_u = BitwiseAnd ($shifted, $field)
  $number = Cast <to = 7> ($number_u)
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

    So it is for the dialect that it names, where that has no test for X's type: nothing is drawn.
    """
    pool = ", ".join(f'"{rng}"' for rng in rngs)
    indexes = ", ".join(str(index) for index in range(len(rngs)))
    text = _GUARD.replace(
        "ATTRIBUTES",
        'mode = "TF", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0, ngram_counts = [0], '
        f"ngram_indexes = [{indexes}], pool_strings = [{pool}]",
    )
    for index, rng in enumerate(rngs):
        text += f"  {rng}_place = Constant <value_ints = [{index}]> ()\n  {rng}_asked = Gather (found, {rng}_place)\n"
        if depends_on_type(rng):
            known = ", ".join(str(int(name in DIALECTS[rng].tests)) for name in _BY_PRECISION)
            text += _KNOWN.replace("$", f"{rng}_").replace("KNOWN", known)
        else:
            text += f"  {rng}_row = Mul (row, {rng}_asked)\n"
    return text


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
    cut = _CUT_WIDE if wide else _CUT_INT32 if any(test.shift for test in tests) else _CUT_INT32_IN_PLACE
    text = _SHARES[share] + constants + cut + _LIMIT.replace("INTEGER", "7" if wide else "6")
    text = text.replace("$share", "ratio_") if share == "plain" else text
    if dialect.keeps_below:
        return text + "  $kept = Less ($number, $limit)\n  $dropped = Not ($kept)\n"
    return text + "  $dropped = Less ($number, $limit)\n"


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
