"""The form "mask-inputs": the mask is an input of the graph, so that whoever runs the model decides what is dropped.

It is how a model follows a generator that no graph can hold, such as PyTorch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import layers, scopes
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import lowering
from onnx_spatialdrop.passes.expand.task import Task

__all__ = ["FORM", "declare", "lower"]

FORM: Final = "mask-inputs"


def declare(model: ir.Model, sites: Sequence[scopes.Site], names: Names) -> list[ir.Value]:
    """Return a new input for each node, which is not in the graph yet: bool, the shape of X with ``axes`` set to 1.

    It is called after the layer, "block.drop.mask", with a number where that name is taken.

    Raises:
        FormError: a node inside a function, or one whose X has an unknown rank.
        SpecError: axes that do not fit X.
    """
    inputs = []
    labels = layers.layer_names(site.node for site in sites)
    for site, label, (_, shape) in zip(sites, labels, input_types.known_inputs(model, sites), strict=True):
        where = op.describe(site.node)
        if isinstance(site.scope, ir.Function):
            raise FormError(
                f"{where}: stands in the function {site.scope.domain}::{site.scope.name}, whose calls would share one "
                "mask; inline the model's functions first (onnx.inliner.inline_local_functions)"
            )
        if shape is None:
            raise FormError(
                f"{where}: the rank of its input {site.node.inputs[0] and site.node.inputs[0].name!r} is unknown, so "
                "its mask has no shape; declare the input's shape (value_info)"
            )
        shared = spec.normalize_axes(op.read(site.node).axes, len(shape), where)
        dims = [1 if axis in shared else dim for axis, dim in enumerate(shape)]
        inputs.append(
            ir.Value(
                name=names.prefix(f"{label}.mask"),
                type=ir.TensorType(ir.DataType.BOOL),
                shape=input_types.written(dims),
            )
        )
    return inputs


def lower(group: NodeBuilder, task: Task) -> tuple[ir.Value, ir.Value]:
    """Append Mul and Where on the mask input to ``group``; return Y and the mask."""
    given = task.mask
    assert given is not None
    if task.training is None:
        gone = group.add("Xor", given, group.constant(np.array(True), "true"), role="gone")
    else:
        gone = group.add("And", group.add("Not", given, role="drop"), task.training, role="gone")
    kept = group.add("Not", gone, role="mask")
    return lowering.choose(group, task, gone), kept
