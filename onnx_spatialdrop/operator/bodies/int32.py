"""The function body once more, for runtimes without 64-bit or unsigned integers: the same bits from int32 alone."""

from __future__ import annotations

from functools import cache, partial

import onnx
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator.bodies import body, int32_helpers
from onnx_spatialdrop.operator.bodies import int32_words as words
from onnx_spatialdrop.operator.bodies.int32_words import Nonce

__all__ = ["Nonce", "functions"]


@cache
def _protos(
    opset: int, rng: str, nonce: Nonce, in_float: bool, dtype: str | None, single: bool, balanced: bool
) -> tuple[onnx.FunctionProto, ...]:
    main = body.assemble(
        [rng],
        words.draws(nonce),
        partial(words.words, single=single, balanced=balanced),
        wide=False,
        in_float=in_float,
        guarded=False,
        dtype=dtype,
        single=single,
        balanced=balanced,
    )
    return body.parse([*int32_helpers.helpers(rng), main], opset)


def functions(
    opset: int,
    rng: str = "philox",
    *,
    nonce: Nonce = "dropout",
    in_float: bool = False,
    dtype: str | None = None,
    single: bool = False,
    balanced: bool = False,
) -> list[ir.Function]:
    """Return new functions that define SpatialDropout on int32, helpers first; they are there to be inlined.

    In OpenVINO a step must lie below 2**31, and a mask row below 2**24 entries; elsewhere a mask must have fewer than
    2**33 entries a row (2**32 for keras_jax), and steps have all 64 bits.

    Args:
        opset: the version of ONNX's default domain that the model imports, 18 or newer.
        rng: the dialect.
        nonce: what draws for a negative step.
        in_float: as in body.functions.
        dtype: as in body.functions.
        single: as in body.assemble; for tract.
        balanced: the node's ``strata`` may be other than 1.

    Raises:
        FormError: the opset is below 18.
    """
    if opset < body.MIN_OPSET:
        raise FormError(f"the model imports opset {opset}; the int32 body needs {body.MIN_OPSET} or newer")
    return [
        ir.serde.deserialize_function(proto) for proto in _protos(opset, rng, nonce, in_float, dtype, single, balanced)
    ]
