"""The forms of the operator's bits with one generator for many nodes: which target gets it, and with an If or not."""

from __future__ import annotations

from typing import Final

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.expand import targets
from onnx_spatialdrop.passes.masks.builder import MaskBuilder
from onnx_spatialdrop.passes.masks.generator import Generated, generate
from onnx_spatialdrop.passes.masks.narrow import Narrow, Nonce
from onnx_spatialdrop.passes.masks.plan import Group
from onnx_spatialdrop.passes.masks.wide import Wide
from onnx_spatialdrop.passes.masks.write import GroupWriter

__all__ = ["FORMS", "takes", "writer"]

#: The forms that this module writes.
FORMS: Final = frozenset({"philox", "philox-int32"})

#: Targets that get no If: they end the process on one, draw once for ever in it, or lose speed by it.
_NO_IF: Final = frozenset({"onnxruntime-training", "openvino", "tract"})


def takes(form: str, site: scopes.Site) -> bool:
    """Return whether a node is drawn together with others, or by a generator of the same kind."""
    attributes = op.read(site.node)
    return form in FORMS and attributes.rng == "philox" and (form == "philox" or attributes.strata == 1)


def writer(form: str, target: str, names: Names) -> GroupWriter:
    """Return what writes groups of nodes out for a target."""
    nonce: Nonce = "uniform" if target in ("openvino", "tract") else "dropout"

    def produce(build: MaskBuilder, group: Group) -> Generated:
        lanes = Wide(group.entries[0].site.opset) if form == "philox" else Narrow(nonce)
        return generate(build, group, lanes, branch=target not in _NO_IF, single=target in targets.SINGLE_STEP)

    return GroupWriter(form, produce, names)
