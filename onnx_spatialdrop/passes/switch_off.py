"""Dropout and batch normalization nodes of an ir.Model, as they are at inference; direct.py does it to a ModelProto.

What they are is said in training_forms.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import prune, replace, scopes
from onnx_spatialdrop.graph.constants import Constants, dtype_of
from onnx_spatialdrop.graph.inferred import Inferred
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.graph.true_masks import BOOL_FROM, TrueMask
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.remove import remove_node
from onnx_spatialdrop.passes.training_forms import (
    BATCH_NORM,
    DROPOUT,
    STATISTICS,
    TRAINING_ATTRIBUTES,
    normalizes_by_batch,
)

__all__ = ["Place", "dropouts_off", "normalize_by_statistics", "training_batch_norms"]


#: The graph that held a node, and what the node passes on.
Place = tuple[ir.Graph | ir.Function, ir.Value]


def _nodes(model: ir.Model, *op_types: str) -> Iterator[tuple[ir.Node, int]]:
    """Yield ONNX's nodes of some kinds, and ours, with the opsets that apply to them."""
    for scope in scopes.foreign_scopes(model):
        opset = scopes.default_opset(scope, model)
        for node in list(scope.all_nodes()):
            standard = node.domain == "" and node.op_identifier() not in model.functions
            if node.op_type in op_types and (standard or op.is_spatial_dropout(node)):
                yield node, opset


def dropouts_off(model: ir.Model, all_of_them: bool) -> list[Place]:
    """Take SpatialDropout and Dropout nodes out, in place; return where each was.

    Args:
        model: the model.
        all_of_them: also those Dropout nodes whose mask something reads, or that drop from a constant: these may be
            part of a dropout that is spelled out, which can be proven as long as they are there.
    """
    work, controls, found = _DropoutsOff(model, all_of_them), dict[ir.Value, None](), list[Place]()
    is_ours = False
    for node, opset in _nodes(model, DROPOUT, spec.OP_TYPE):
        x = node.inputs[0] if node.inputs else None
        inputs = [value for value in node.inputs[1:] if value is not None]
        graph, ours = node.graph, op.is_spatial_dropout(node)
        if x is None or graph is None or not (work.spatial if ours else work.standard)(node, opset):
            continue
        is_ours = is_ours or ours
        controls.update(dict.fromkeys(inputs))
        found.append((graph, x))
    prune.prune_unused(model, controls)
    if is_ours:
        prune.drop_domain(model)
    return found


class _DropoutsOff:
    """Takes nodes out one after the other; False where one has to stay."""

    def __init__(self, model: ir.Model, all_of_them: bool) -> None:
        self._model, self._all = model, all_of_them
        self._constants = Constants()
        self._made_names: Names | None = None
        self._inferred: Inferred | None = None

    def _names(self) -> Names:
        self._made_names = self._made_names or Names(self._model)
        return self._made_names

    def spatial(self, node: ir.Node, opset: int) -> bool:
        op.complete(node)
        remove_node(node, self._names(), opset)
        return True

    def standard(self, node: ir.Node, opset: int) -> bool:
        x = node.inputs[0]
        if x is None or not node.outputs or node.graph is None:
            return False
        masks = [mask for mask in node.outputs[1:] if mask.uses() or mask.is_graph_output()]
        may_be_part = any(mask.uses() for mask in masks) or self._constants.number(x) is not None
        dtype = self._mask_type(masks, x, opset)
        if dtype is None or (may_be_part and not self._all):
            return False
        for mask in masks:
            ones = TrueMask((), opset, dtype).nodes(x, self._names().prefix(f"{node.outputs[0].name}/ones"))
            node.graph.insert_before(node, ones)
            replace.take_over(mask, ones[-1].outputs[0])
        replace.bypass(node, x)
        return True

    def _mask_type(self, masks: list[ir.Value], x: ir.Value, opset: int) -> np.dtype[Any] | None:
        if not masks or opset >= BOOL_FROM:
            return np.dtype(np.bool_)
        known = dtype_of(masks[0]) or dtype_of(x)
        if known is None:
            self._inferred = self._inferred or Inferred(self._model)
            inferred = self._inferred.dtype(x)
            known = None if inferred is None else inferred.numpy()
        return known


def training_batch_norms(model: ir.Model) -> list[tuple[ir.Node, int]]:
    """Return the batch normalizations in training mode, and the opsets that apply to them."""
    return [
        (node, opset)
        for node, opset in _nodes(model, BATCH_NORM)
        if normalizes_by_batch(opset, _training_attributes(node), len(node.outputs))
    ]


def _training_attributes(node: ir.Node) -> dict[str, int | None]:
    found = {name: node.attributes[name] for name in TRAINING_ATTRIBUTES if name in node.attributes}
    return {name: None if attribute.is_ref() else attribute.as_int() for name, attribute in found.items()}


def normalize_by_statistics(model: ir.Model) -> int:
    """Let batch normalizations in training mode normalize by the statistics in the file; return how many.

    One of an old opset whose saved mean or variance, which is for gradients, is used stays as it is.
    """
    count = 0
    for node, opset in training_batch_norms(model):
        if node.graph is None or len(node.inputs) < 5 or any(v.uses() or v.is_graph_output() for v in node.outputs[3:]):
            continue
        for index, source in ((index, node.inputs[source]) for index, source in STATISTICS.items()):
            if index < len(node.outputs) and source is not None:
                _stand_in(node.outputs[index], source, node)
        node.resize_outputs(1)
        for name in TRAINING_ATTRIBUTES:
            node.attributes.pop(name, None)
        if opset < 7:
            node.attributes["is_test"] = ir.AttrInt64("is_test", 1)
        count += 1
    return count


def _stand_in(output: ir.Value, source: ir.Value, node: ir.Node) -> None:
    """Let readers of ``output`` read ``source``; where the graph returns it, an Identity computes it."""
    assert node.graph is not None
    if output.is_graph_output():
        name = f"{output.name}/stored"
        identity = ir.Node("", "Identity", [source], [], outputs=[ir.Value(name=name)], name=name)
        node.graph.insert_after(node, identity)
        replace.take_over(output, identity.outputs[0])
    else:
        output.replace_all_uses_with(source)
