"""Make a model one that a server may run on several requests at once: each input has the batch as its first axis.

Whether samples meet inside the model it does not ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.graph.scopes import Site
from onnx_spatialdrop.operator import node as op

__all__ = ["give_steps", "refuse_shared_masks", "switch_on"]

#: Steps count modulo 2**62: a negative one among several, or one from which draws run over, fails the whole batch, and
#: so the requests of others.
_LAST_STEP: Final = 2**62 - 1


def refuse_shared_masks(sites: Iterable[Site]) -> None:
    """Check that each node draws a mask a sample.

    Raises:
        FormError: a node shares axis 0.
    """
    for site in sites:
        x = site.node.inputs[0]
        rank = None if x is None or x.shape is None else len(x.shape)
        if 0 in {axis if rank is None else axis % rank for axis in op.read(site.node).axes}:
            raise FormError(
                f"{op.describe(site.node)}: has one mask for all samples (axis 0 is shared), so that an answer would "
                "depend on the requests beside it; target='onnxruntime' writes it for one request a run"
            )


def switch_on(graph: ir.Graph, switches: Iterable[ir.Value]) -> None:
    """Make ``training_mode`` the constant true, and constants of all other defaults but that of the step, in place."""
    controlling = set(switches)
    for value in list(graph.inputs):
        if value in controlling and value.dtype == ir.DataType.BOOL:
            controls.fix(graph, value, np.ones(() if value.shape is None else value.shape.numpy(), bool))
        elif value not in controlling and value.const_value is not None:
            graph.inputs.remove(value)


def give_steps(model: ir.Model, switches: Iterable[ir.Value], names: Names) -> None:
    """Let inputs ``step`` take [batch, 1] in place of [batch], without a default, in place."""
    graph = model.graph
    for old in switches:
        if not old.is_graph_input() or old.dtype != ir.DataType.INT64 or old.name is None:
            continue
        name, prefix = old.name, names.prefix(f"{old.name}/of_a_request")
        graph.initializers.pop(name, None)
        old.name = f"{prefix}/old"
        step = ir.Value(name=name, type=old.type, shape=ir.Shape([_batch(graph, old), 1]))
        graph.inputs[graph.inputs.index(old)] = step
        build = NodeBuilder(prefix, {})
        in_range = build.add("BitwiseAnd", step, build.constant(np.array(_LAST_STEP), "last"), role="in_range")
        flat = build.add("Reshape", in_range, build.constant(np.array([-1]), "batch"), role="flat")
        old.replace_all_uses_with(flat)
        graph.insert_before(graph[0], build.nodes)


def _batch(graph: ir.Graph, step: ir.Value) -> str:
    """Return the name of the batch: that of the first size of the first other input that has one."""
    for value in graph.inputs:
        if value is not step and value.shape is not None and len(value.shape):
            first = value.shape[0]
            if isinstance(first, ir.SymbolicDim) and first.value is not None:
                return str(first.value)
    return "batch"
