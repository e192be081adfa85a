"""The operator as model-local functions: standard ONNX nodes that draw the same bits where no kernel is installed.

Here the parts are put together: the frame, the words of each dialect, and the test that drops entries. Nothing touches
a model; passes/attach.py puts functions there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Final

import onnx
import onnx.parser
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import decide, frame, strata
from onnx_spatialdrop.operator.bodies import words as word_lines

__all__ = ["DRAWN_OPSET", "MIN_OPSET", "OWN_FUNCTIONS", "assemble", "functions", "parse"]

#: From this opset on a body draws the operator's own bits; below, ONNX lacks BitwiseXor and BitwiseAnd.
MIN_OPSET: Final = 18
#: From this opset on a body can at least draw from the runtime's generator; below, it cannot follow X's type.
DRAWN_OPSET: Final = 15

#: Names of the functions that attach writes, all in the operator's domain.
OWN_FUNCTIONS: Final = frozenset({spec.OP_TYPE, *spec.HELPERS})

_BLOCKS_TO_ROWS: Final = """
  $by_row = Transpose <perm = [2, 3, 0, 1]> ($dropped)
  $padded = Flatten <axis = 1> ($by_row)
  $rows = Slice ($padded, zero, ROW, one)
"""
# A step of 0 stops the run.
_BLOCKS_TO_NAMED_ROWS: Final = _BLOCKS_TO_ROWS.replace(
    "$rows = Slice ($padded, zero, ROW, one)", "[NAME] $rows = Slice ($padded, zero, ROW, one, found)"
)
_BLOCKS_TO_ROW: Final = """
  $by_row = Transpose <perm = [2, 3, 0, 1]> ($dropped)
  $padded_shape = Constant <value_ints = [1, -1]> ()
  $padded = Reshape ($by_row, $padded_shape)
  $rows = Slice ($padded, zero, ROW, one)
"""
_END: Final = """
  [NAME_] drop = Reshape <allowzero = 1> (ROWS, entry_shape)
"""
# ONNX Runtime's message gives the name of the node that failed.
_UNKNOWN: Final = "rng_or_type_is_unknown_to_the_function_attach_again"


def assemble(
    rngs: Sequence[str],
    draws: str,
    words: Callable[[str], str],
    *,
    wide: bool = True,
    in_float: bool = False,
    guarded: bool = True,
    dtype: str | None = None,
    single: bool = False,
    balanced: bool = False,
) -> str:
    """Return the text of the main function.

    Args:
        rngs: the dialects that it draws. Each is worked out for the rows of the mask or, if ``rng`` names another, for
            rows of no entries, and all are joined; so nothing branches and nothing is drawn in vain.
        draws: the lines that all dialects share; they make `row`, the entries of a row.
        words: the lines that make the words of a dialect, ROW a row.
        wide: words are uint64; else int32.
        in_float: values are computed in float32.
        guarded: the function reads ``rng``, and fails where it is none of ``rngs``; else ``rngs`` is one dialect.
        dtype: NumPy's name of X's type; None: the function finds out where it has to.
        single: step has one element, and no shape depends on what an input holds.
        balanced: dialects that know strata are drawn by them.
    """
    text = (frame.HEAD_SINGLE + frame.ROWS_SINGLE if single else frame.HEAD + frame.ROWS) + draws
    if dtype is None and any(decide.depends_on_type(rng) for rng in rngs):
        text += decide.KIND
    by_step = guarded and decide.is_guarded_by_step(rngs)
    text += decide.guard(rngs) if guarded else ""
    to_rows = _BLOCKS_TO_ROW if single else _BLOCKS_TO_NAMED_ROWS if by_step else _BLOCKS_TO_ROWS
    for rng in rngs:
        part = words(rng)
        if balanced and rng == spec.RNGS[0]:
            part += strata.DROPPED if wide else strata.DROPPED_INT32
        else:
            part += decide.comparison(rng, wide=wide, dtype=dtype)
        part = part + to_rows if word_lines.is_blocked(rng) else part.replace("$dropped", "$rows")
        text += part.replace("ROW", f"{rng}_row" if guarded and not by_step else "row").replace("$", f"{rng}_")
    rows = [f"{rng}_rows" for rng in rngs]
    if len(rows) > 1:
        text += f"  joined_rows = Concat <axis = 1> ({', '.join(rows)})\n"
    text += _END.replace("ROWS", "joined_rows" if len(rows) > 1 else rows[0])
    return text.replace("NAME", _UNKNOWN) + frame.TAIL + (frame.IN_FLOAT if in_float else frame.IN_T)


def parse(texts: Sequence[str], opset: int) -> tuple[onnx.FunctionProto, ...]:
    """Return the functions of the operator's domain with these texts, in which DOMAIN stands for that domain."""
    header = f'<domain: "{spec.DOMAIN}", opset_import: ["": {opset}, "{spec.DOMAIN}": {spec.VERSION}]>'
    return tuple(onnx.parser.parse_function(header + text.replace("DOMAIN", spec.DOMAIN)) for text in texts)


@cache
def _protos(
    opset: int, rngs: tuple[str, ...], in_float: bool, guarded: bool, dtype: str | None, balanced: bool
) -> tuple[onnx.FunctionProto, ...]:
    if opset < MIN_OPSET:
        return parse([frame.HEAD + frame.DRAWN + frame.TAIL + (frame.IN_FLOAT if in_float else frame.IN_T)], opset)
    main = assemble(
        rngs,
        word_lines.draws(balanced=balanced),
        partial(word_lines.words, scan=guarded, balanced=balanced),
        in_float=in_float,
        guarded=guarded,
        dtype=dtype,
        balanced=balanced,
    )
    # Helpers come first: onnx's ReferenceEvaluator resolves functions in the order of the file.
    return parse([*word_lines.helpers(rngs), main], opset)


def functions(
    opset: int,
    rngs: Sequence[str] = ("philox",),
    *,
    in_float: bool = False,
    guarded: bool = True,
    dtype: str | None = None,
    balanced: bool = False,
    where: str = "the model",
) -> list[ir.Function]:
    """Return new functions that define SpatialDropout in standard ops, helpers first.

    Args:
        opset: the version of ONNX's default domain that the model imports. From 18 on the function draws the bits of
            its dialects, and a negative ``step`` takes 62 bits from the runtime's generator. For 15 to 17 it is
            Dropout on ones: the right distribution, from the runtime's generator, with ``step``, ``seed`` and ``rng``
            unused.
        rngs: the dialects that it can draw, one or more; it takes the one that a node names.
        in_float: compute values in float32 and round them to X's type at the end: for bfloat16, which runtimes cannot
            multiply. The same bits for float16, bfloat16 and float32 (but for the payloads of NaNs); wrong for double.
        guarded: the run fails where a node names another dialect, or has a type that its dialect lacks; False, with
            one dialect, for a function that is written out for one node.
        dtype: NumPy's name of X's type, for a function that is written out for one node.
        balanced: nodes may have more strata than one; else a run of those that have fails.
        where: what asks, for error messages.

    Raises:
        FormError: the opset is below 15.
    """
    if opset < DRAWN_OPSET:
        raise FormError(
            f"{where}: imports opset {opset}, and a function body needs {DRAWN_OPSET} or newer; "
            "convert the model's opset first, or expand with form='uniform'"
        )
    protos = _protos(opset, tuple(rngs), in_float, guarded, dtype, balanced)
    return [ir.serde.deserialize_function(proto) for proto in protos]
