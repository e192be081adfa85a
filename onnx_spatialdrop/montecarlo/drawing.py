"""Let a suffix run on many draws at once: steps, tiled boundary values, and the suffix's nodes moved to read them.

Draw t of row n stands at row t N + n; its step is first[n] + t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.montecarlo.facts import Multiple
from onnx_spatialdrop.montecarlo.plan import Plan, nodes_within
from onnx_spatialdrop.operator import node as op

__all__ = ["attach_steps", "count_rows", "tile", "untile"]


def count_rows(build: NodeBuilder, plan: Plan) -> ir.Value:
    """Return N, the number of samples, as int64 of shape [1]."""
    shape = build.add("Shape", plan.batch, role="input_shape")
    return build.add("Gather", shape, build.constant(np.array([0], np.int64), "first"), role="rows")


def tile(
    build: NodeBuilder,
    plan: Plan,
    first: ir.Value,
    start: ir.Value,
    count: ir.Value,
    rows: ir.Value,
) -> dict[ir.Value, ir.Value]:
    """Return what the suffix is to read in place of its boundary values and of ``step``, for ``count`` draws at once.

    Args:
        build: where the nodes go.
        plan: the cut, which has to be proven.
        first: int64 [N], the step of each row's first draw.
        start: int64 [1], how many draws came before.
        count: int64 [1].
        rows: int64 [1], N.
    """
    zero, one = (build.constant(np.array(number, np.int64), role) for number, role in ((0, "zero"), (1, "unit")))

    def positions(size: ir.Value, role: str) -> tuple[ir.Value, ir.Value]:
        total = build.add("Mul", count, size, role=f"{role}_total")
        scalar = build.add("Squeeze", total, role=f"{role}_scalar")
        all_of_them = build.add("Range", zero, scalar, one, role=f"{role}_range")
        return all_of_them, build.add("Mod", all_of_them, some(size, role), role=role)

    def some(size: ir.Value, role: str) -> ir.Value:
        """Return what to divide by: an empty batch has nothing to divide, but division by 0 ends some processes."""
        return build.add("Max", size, one, role=f"{role}_or_1")

    everywhere, row = positions(rows, "row")
    draw = build.add("Div", everywhere, some(rows, "draw"), role="draw")
    draw = build.add("Add", draw, start, role="draw_number")
    step = build.add("Add", build.add("Gather", first, row, role="row_first"), draw, role="steps")
    replaced = {plan.prepared.step: step}
    blocks = {1: row}
    for index, value in enumerate(plan.boundary):
        fact = plan.facts[value]
        if fact.axis is not None:
            if fact.block not in blocks:
                size = build.constant(np.array([fact.block], np.int64), f"block_{fact.block}")
                wide = build.add("Mul", rows, size, role=f"block_{fact.block}_size")
                blocks[fact.block] = positions(wide, f"block_{fact.block}_row")[1]
            tiled = build.add("Gather", value, blocks[fact.block], role=f"tiled_{index}", axis=fact.axis)
            tiled.type = value.type
            replaced[value] = tiled
        elif fact.counts_rows:
            multiples = [isinstance(entry, Multiple) for entry in fact.entries or ()]
            replaced[value] = _more_rows(build, value, multiples, fact.rank, count)
    return replaced


def _more_rows(build: NodeBuilder, value: ir.Value, multiples: Sequence[bool], rank: int, count: ir.Value) -> ir.Value:
    """Return sizes with those that are multiples of N multiplied by the number of draws."""
    role = f"sizes_{value.name}"
    which = build.constant(np.array(multiples), f"{role}_which")
    one = build.constant(np.array([1], np.int64), f"{role}_one")
    factor = build.add("Where", which, count, one, role=f"{role}_factor")
    if rank == 0:
        factor = build.add("Squeeze", factor, role=f"{role}_scalar")
    factor = build.add("CastLike", factor, value, role=f"{role}_cast") if value.dtype != ir.DataType.INT64 else factor
    return build.add("Mul", value, factor, role=f"{role}_tiled")


def untile(build: NodeBuilder, plan: Plan, first: ir.Value, start: ir.Value) -> dict[ir.Value, ir.Value]:
    """Return what the suffix is to read for one draw of N rows, whatever its nodes do: a step a sample."""
    return {plan.prepared.step: build.add("Add", first, start, role="steps")}


def attach_steps(plan: Plan, replaced: Mapping[ir.Value, ir.Value], prefix: str) -> list[ir.Node]:
    """Let the suffix's nodes read what ``replaced`` says, in place; return them in order, with what was added.

    A node that is not known to take a step a sample finds out as it runs.
    """
    for node in plan.suffix:
        for each in nodes_within(node):
            for index, value in enumerate(each.inputs):
                if value is not None and value in replaced:
                    each.replace_input_with(index, replaced[value])
            for attribute in each.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    outputs = attribute.as_graph().outputs
                    _forget_names(attribute.as_graph())
                    for index, value in enumerate(outputs):
                        if value in replaced:
                            outputs[index] = replaced[value]
        for value in node.outputs:
            value.shape = None
    nodes, members = [], set(plan.suffix)
    single = {
        node: _single(node, f"{prefix}/single_{i}")
        for i, node in enumerate(plan.prepared.live)
        if node not in plan.per_sample
    }
    for node in plan.suffix:
        nodes += [*single.get(node, ()), node]
    for node, added in single.items():
        if node not in members and node.graph is not None:
            node.graph.insert_before(node, added)
    return nodes


def _forget_names(graph: ir.Graph) -> None:
    """Leave open the named sizes inside a node, in place: one may be that of the batch, which is longer now."""
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([size if isinstance(size, int) else None for size in value.shape])


def _single(node: ir.Node, prefix: str) -> list[ir.Node]:
    """Let a node read all of its steps where they are as many as the rows that it drops from, else the first.

    Returns the nodes that choose.
    """
    build = NodeBuilder(prefix, {})
    zero, one = (build.constant(np.array([end], np.int64), f"at_{end}") for end in (0, 1))
    x, step = node.inputs[0], node.inputs[2]
    end = one
    if 0 not in op.read(node).axes:
        size = build.add("Gather", build.add("Shape", x, role="x_shape"), zero, role="x_rows")
        fits = build.add("Equal", size, build.add("Shape", step, role="steps"), role="fits")
        end = build.add("Where", fits, size, one, role="end")
    node.replace_input_with(2, build.add("Slice", step, zero, end, role="step"))
    return build.nodes
