"""Find the control inputs that a generator was written for. Reads the graph only."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY

__all__ = ["control_inputs", "is_generated"]


def is_generated(value: ir.Value) -> bool:
    """Return whether a node of a generator computes ``value``."""
    producer = value.producer()
    return producer is not None and GENERATOR_KEY in producer.metadata_props


def control_inputs(values: Iterable[ir.Value]) -> dict[str, ir.Value]:
    """Return what the generators of ``values`` read for the inputs of SpatialDropout, by the names of those."""
    found: dict[str, ir.Value] = {}
    pending = list(values)
    seen = set(pending)
    while pending:
        producer = pending.pop().producer()
        if producer is None or GENERATOR_KEY not in producer.metadata_props:
            continue
        name, first = producer.metadata_props[GENERATOR_KEY], producer.inputs[0] if producer.inputs else None
        if name and first is not None and not is_generated(first):
            found.setdefault(name, first)
        for value in (*producer.inputs, *scopes.captured(producer)):
            if value is not None and value not in seen:
                seen.add(value)
                pending.append(value)
    return found
