"""All masks of a group from one node of a kernel's own, for sessions: it is told sizes and steps, and returns entries.

The node is never written to a file. It checks the step, and refuses a request by returning an entry too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, MaskBuilder
from onnx_spatialdrop.passes.masks.generator import Generated, switch_of
from onnx_spatialdrop.passes.masks.plan import Group, Size
from onnx_spatialdrop.passes.masks.sizes import MaskSizes

__all__ = ["MASKS_OP", "generate_by_op"]

#: The name of the node. It returns which entries are dropped, bool, for each row those of all nodes; one that measures
#: returns training_mode, too: providers make a constant of an input that has a default.
MASKS_OP: Final = "SpatialDropoutMasks"


def generate_by_op(
    build: MaskBuilder, group: Group, domain: str, attributes: Sequence[ir.Attr], refused: str, *, measures: bool
) -> Generated:
    """Append the node to ``build``.

    Args:
        build: where it goes.
        group: the nodes whose masks it makes, of any sizes and dialects.
        domain: the domain of the kernel's node.
        attributes: what the node has to know of ``group``.
        refused: what the name of the node says that fails where the kernel refuses a request.
        measures: the node is given the tensors that sizes are read from, and what to read there, so that nothing has to
            be computed before it; its inputs are training_mode, step and those tensors. Else they are int64
            [1 + nodes], the rows of the masks and the entries a row of each node, training_mode and step.
    """
    sizes, training = MaskSizes(build, group), switch_of(build, group)
    count, numbers = len(group.entries), [entry.length for entry in group.entries]
    fixed = [number for number in numbers if number is not None]
    if len(fixed) == count:
        lengths, total = build.ints(*fixed), build.ints(sum(fixed))
    else:
        lengths = build.join([sizes.length_of(entry) for entry in group.entries], "lengths")
        total = build.add("ReduceSum", lengths, role="total", keepdims=1)
    switch = build.constant(np.array(True)) if training is None else training
    if measures:
        sources, places = _places(group)
        inputs, attributes = [switch, group.step, *(sources or [group.step])], [*attributes, *places]
    else:
        asked = build.add("Concat", sizes.rows, lengths, role="sizes", axis=0)
        inputs = [asked, switch, group.step]
    flat, passed_on = _node(build, domain, inputs, attributes, measures)
    training = passed_on if training is not None and measures else training
    if sum(fixed) > 1 and len(fixed) == count:  # a shape that is constant needs no rows, which an entry too many belies
        flat = build.add("Reshape", flat, build.ints(-1, sum(fixed)), role="flat")
    else:
        shape = build.add("Concat", sizes.rows, total, role="flat_shape", axis=0)
        flat = build.add("Reshape", flat, shape, role="flat", allowzero=build.allowzero)
    build.nodes[-1].name = f"{build.prefix}/{refused}"
    parts = [flat]
    if count > 1:
        parts = [*build.outputs("Split", [flat, lengths], [f"part_{place}" for place in range(count)], axis=1)]
    if group.tables:
        shapes = [
            build.ints(-1, *(size for size in entry.inner or () if isinstance(size, int))) for entry in group.entries
        ]
    else:
        shapes = [sizes.whole(entry) for entry in group.entries]
    allow = None if group.tables else build.allowzero
    dropped = [
        build.add("Reshape", part, shape, role=f"dropped_{place}", allowzero=allow)
        for place, (part, shape) in enumerate(zip(parts, shapes, strict=True))
    ]
    return Generated(dropped, lambda place: sizes.whole(group.entries[place]), training)


def _places(group: Group) -> tuple[list[ir.Value], list[ir.Attr]]:
    """Return the tensors that a group's sizes are read from, and attributes that say what is read.

    A size is written as the number that it is, or as -1 - (16 place + axis) for an axis of the tensor at a place.
    """
    sources: dict[ir.Value, int] = {}

    def written(size: Size | None) -> int:
        assert size is not None
        if isinstance(size, int):
            return size
        return -1 - (16 * sources.setdefault(size.value, len(sources)) + size.axis)

    rows = written(group.rows)
    inner = [[written(size) for size in entry.inner or ()] for entry in group.entries]
    return list(sources), [
        ir.AttrInt64("rows", rows),
        ir.AttrInt64s("ranks", [len(sizes) for sizes in inner]),
        ir.AttrInt64s("inner", [size for sizes in inner for size in sizes] or [1]),
    ]


def _node(
    build: MaskBuilder, domain: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr], passes_on: bool
) -> tuple[ir.Value, ir.Value]:
    bools = ir.TensorType(ir.DataType.BOOL)  # with shapes, since OpenVINO takes nothing of an unknown rank
    outputs = [ir.Value(name=f"{build.prefix}/entries", type=bools, shape=ir.Shape([None]))]
    outputs.append(ir.Value(name=f"{build.prefix}/training_mode", type=bools, shape=ir.Shape([])))
    name, metadata = f"{build.prefix}/{MASKS_OP}", {GENERATOR_KEY: ""}
    listed = outputs if passes_on else outputs[:1]
    build.nodes.append(
        ir.Node(domain, MASKS_OP, inputs, attributes, outputs=listed, name=name, metadata_props=metadata)
    )
    return outputs[0], outputs[1]
