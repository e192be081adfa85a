"""The forms of the operator's bits with one generator for many nodes: which target gets it, and with an If or not."""

from __future__ import annotations

from typing import Final

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.masks.builder import MaskBuilder
from onnx_spatialdrop.passes.masks.generator import Generated, generate
from onnx_spatialdrop.passes.masks.plan import Group
from onnx_spatialdrop.passes.masks.wide import Wide
from onnx_spatialdrop.passes.masks.write import GroupWriter

__all__ = ["FORMS", "takes", "writer"]

#: The forms that this module writes.
FORMS: Final = frozenset({"philox"})

#: Targets that get no If: they end the process on one, draw once for ever in it, or lose speed by it.
_NO_IF: Final = frozenset({"onnxruntime-training", "openvino", "tract"})


def takes(form: str, site: scopes.Site) -> bool:
    """Return whether a node is drawn together with others, or by a generator of the same kind."""
    return form in FORMS and op.read(site.node).rng == "philox"


def writer(form: str, target: str, names: Names) -> GroupWriter:
    """Return what writes groups of nodes out for a target."""

    def produce(build: MaskBuilder, group: Group) -> Generated:
        return generate(build, group, Wide(group.entries[0].site.opset), branch=target not in _NO_IF)

    return GroupWriter(form, produce, names)
