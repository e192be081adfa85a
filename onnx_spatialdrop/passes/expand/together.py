"""The forms of the operator's bits with one generator for many nodes: which target gets it, and with an If or not."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import inlined, targets
from onnx_spatialdrop.passes.masks.builder import MaskBuilder
from onnx_spatialdrop.passes.masks.generator import Generated, generate
from onnx_spatialdrop.passes.masks.narrow import Narrow, Nonce
from onnx_spatialdrop.passes.masks.plan import MAX_ENTRIES, Group
from onnx_spatialdrop.passes.masks.wide import Wide
from onnx_spatialdrop.passes.masks.write import GroupWriter

__all__ = ["FORMS", "stacks", "takes", "writer"]

#: The forms that this module writes.
FORMS: Final = frozenset({"philox", "philox-int32"})

#: Targets that get no If: they end the process on one, draw once for ever in it, or lose speed by it.
_NO_IF: Final = frozenset({"onnxruntime-training", "openvino", "tract"})

#: Targets that get no Scan.
_NO_SCAN: Final = frozenset({"onnxruntime-training", "tract"})


def takes(form: str, target: str, site: scopes.Site, shape: ir.Shape | None) -> bool:
    """Return whether a node is drawn together with others, or by a generator of the same kind.

    Others are written out one by one: nodes of the frameworks' dialects, whose words come from other generators, and
    for a target that has to know all shapes before it runs, nodes whose generator would work sizes out, or cycles.
    """
    attributes = op.read(site.node)
    if form not in FORMS or attributes.rng != "philox":
        return False
    if target not in targets.SINGLE_STEP:
        return True
    if shape is None or attributes.strata != 1:
        return False
    shared = spec.normalize_axes(attributes.axes, len(shape), attributes.where)
    sizes = [1 if axis in shared else size for axis, size in enumerate(shape)][1:]
    numbers = [size for size in sizes if isinstance(size, int)]
    length = int(np.prod(numbers, dtype=np.int64))
    return 0 not in shared and len(numbers) == len(sizes) and length % 4 == 0 and 0 < length <= MAX_ENTRIES


def stacks(target: str) -> bool:
    """Return whether a target gets a Scan."""
    return target not in _NO_SCAN


def writer(form: str, target: str, names: Names) -> GroupWriter:
    """Return what writes groups of nodes out for a target."""
    nonce: Nonce = "uniform" if target in ("openvino", "tract") else "dropout"

    def produce(build: MaskBuilder, group: Group) -> Generated:
        if target in targets.SINGLE_STEP:
            inlined.refuse_for_single(target, group.entries[0].attributes, group.step)
        lanes = (
            Wide(group.entries[0].site.opset, group.total if group.tables else 0) if form == "philox" else Narrow(nonce)
        )
        return generate(build, group, lanes, branch=target not in _NO_IF, single=target in targets.SINGLE_STEP)

    return GroupWriter(form, produce, names)
