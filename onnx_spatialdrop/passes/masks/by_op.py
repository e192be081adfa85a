"""All masks of a group from one node of a kernel's own, for sessions: it is told sizes and steps, and returns entries.

The node is never written to a file. It checks the step, and refuses a request by returning an entry too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, MaskBuilder
from onnx_spatialdrop.passes.masks.generator import Generated, Shapes, switch_of
from onnx_spatialdrop.passes.masks.plan import Group
from onnx_spatialdrop.passes.masks.sizes import MaskSizes

__all__ = ["MASKS_OP", "generate_by_op"]

#: The name of the node. Inputs: int64 [1 + nodes], the rows of the masks and the entries a row of each node;
#: training_mode; step. Output: bool, which entries are dropped, for each row those of all nodes.
MASKS_OP: Final = "SpatialDropoutMasks"


def generate_by_op(
    build: MaskBuilder, group: Group, domain: str, attributes: Sequence[ir.Attr], refused: str
) -> Generated:
    """Append the node to ``build``.

    Args:
        build: where it goes.
        group: the nodes whose masks it makes, of any sizes and dialects.
        domain: the domain of the kernel's node.
        attributes: what the node has to know of ``group``.
        refused: what the name of the node says that fails where the kernel refuses a request.
    """
    sizes, training = MaskSizes(build, group), switch_of(build, group)
    count, numbers = len(group.entries), [entry.length for entry in group.entries]
    fixed = [number for number in numbers if number is not None]
    if len(fixed) == count:
        lengths, total = build.ints(*fixed), build.ints(sum(fixed))
    else:
        lengths = build.join([sizes.length_of(entry) for entry in group.entries], "lengths")
        total = build.add("ReduceSum", lengths, role="total", keepdims=1)
    asked = build.add("Concat", sizes.rows, lengths, role="sizes", axis=0)
    step = build.port("Reshape", group.step, build.ints(-1), role="steps", reads="step")
    always = build.constant(np.array(True))
    flat = _node(build, domain, [asked, always if training is None else training, step], attributes)
    shape = build.add("Concat", sizes.rows, total, role="flat_shape", axis=0)
    flat = build.add("Reshape", flat, shape, role=refused, allowzero=build.allowzero)
    parts = [flat]
    if count > 1:
        parts = [*build.outputs("Split", [flat, lengths], [f"part_{place}" for place in range(count)], axis=1)]
    shapes = Shapes(build, group, sizes, None)
    targets = [shapes.target(place) for place in range(count)]
    return Generated(parts, targets, shapes.mask, training, not group.tables)


def _node(build: MaskBuilder, domain: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr]) -> ir.Value:
    output = ir.Value(name=f"{build.prefix}/entries")
    metadata = {GENERATOR_KEY: ""}
    name = f"{build.prefix}/{MASKS_OP}"
    build.nodes.append(
        ir.Node(domain, MASKS_OP, inputs, attributes, outputs=[output], name=name, metadata_props=metadata)
    )
    return output
