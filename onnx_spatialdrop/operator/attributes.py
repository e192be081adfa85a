"""The attributes of a SpatialDropout node, checked, whether the node is onnx_ir's or a protobuf. It knows neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from onnx import AttributeProto

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import dialects, spec

__all__ = ["Given", "checked"]

_TYPES: Final = {
    "axes": AttributeProto.INTS,
    "ratio": AttributeProto.FLOAT,
    "seed": AttributeProto.INT,
    "scale": AttributeProto.FLOAT,
    "rng": AttributeProto.STRING,
    "strata": AttributeProto.INT,
}


class Given(NamedTuple):
    """An attribute: its type by the number that ONNX gives it, its value, and which of a function's it refers to."""

    type: int
    value: Any
    reference: str = ""


def checked(
    where: str,
    inputs: Sequence[object],
    outputs: int,
    given: Mapping[str, Given],
    dtype: np.dtype[Any] | None = None,
) -> spec.Attributes:
    """Return the attributes of a node.

    Args:
        where: how messages name the node.
        inputs: its inputs; what is false is missing.
        outputs: how many outputs it lists.
        given: its attributes by name; those that the operator does not have are not looked at.
        dtype: the type of X, where it is known.

    Raises:
        SpecError: a missing or impossible attribute, inputs and outputs other than 3 and 2, or an X of a type that the
            node's ``rng`` draws no masks for.
    """
    if len(inputs) != 3 or not all(inputs):
        raise SpecError(f"{where}: SpatialDropout takes exactly three inputs, X, training_mode and step")
    if outputs != 2:
        raise SpecError(
            f"{where}: SpatialDropout lists exactly two outputs, Y and the mask; name the mask though unused"
        )
    missing = [key for key in ("axes", "ratio", "seed") if key not in given]
    if missing:
        raise SpecError(f"{where}: attribute {missing[0]} is missing; axes, ratio and seed are required")
    found: dict[str, Any] = {"scale": 0.0, "rng": "philox", "strata": 1}
    for key, attribute in given.items():
        if key not in _TYPES:
            continue
        if attribute.reference:
            source = f"{attribute.reference!r} of its function"
            raise SpecError(f"{where}: attribute {key} refers to {source}; inline that function first")
        if attribute.type != _TYPES[key]:
            held, needed = (AttributeProto.AttributeType.Name(kind) for kind in (attribute.type, _TYPES[key]))
            raise SpecError(f"{where}: attribute {key} is of type {held}; it must be {needed}")
        found[key] = attribute.value
    found |= {"axes": tuple(found["axes"]), "rng": str(found["rng"])}  # onnx_ir leaves what is no UTF-8 as bytes
    attributes = spec.Attributes(**found, where=where)
    if dtype is not None:
        dialects.word_test(attributes.rng, dtype, where)
    return attributes
