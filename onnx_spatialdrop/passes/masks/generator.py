"""The generator of a group's masks in standard operators: the operator's own bits, every node's in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, TRAINING, MaskBuilder
from onnx_spatialdrop.passes.masks.layouts import Drawing, cut_tables, draw_stacked, draw_tables
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Entry, Group
from onnx_spatialdrop.passes.masks.sizes import MaskSizes
from onnx_spatialdrop.passes.masks.steps import read_steps
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["Generated", "generate", "switch_of"]


@dataclass(frozen=True)
class Generated:
    """What a producer of masks makes for a group, one of each for a node.

    Attributes:
        dropped: which entries are dropped, bool, of the mask's shape, or one that broadcasts to it while nothing is
            drawn.
        masks: makes the value of a mask's shape, given the node's place in the group.
        training: the switch, bool without dimensions; None where it is constantly true.
    """

    dropped: Sequence[ir.Value]
    masks: Callable[[int], ir.Value]
    training: ir.Value | None


def generate(
    build: MaskBuilder, group: Group, lanes: Wide | Narrow, *, branch: bool = True, single: bool = False
) -> Generated:
    """Append a generator to ``build``.

    1. Steps are read, and checked, whether anything is drawn or not.
    2. With ``branch`` an If leaves the rest out while ``training_mode`` is false; else everything is drawn, in vain.
    3. A step that is a constant, one number that is not negative, needs no check and no fresh draw.
    4. With ``single``, step has one element, and no shape depends on what is fed.
    """
    sizes = MaskSizes(build, group)
    training = switch_of(build, group)
    branch = branch and training is not None
    steps = read_steps(build, group, lanes, sizes, branch=branch, single=single)

    def masks(place: int) -> ir.Value:
        return sizes.whole(group.entries[place])

    drawn: Sequence[ir.Value]
    if training is None or not branch:
        drawn = _drawn(build, Drawing(group, lanes, sizes, steps, training))
    else:
        drawing, idle = build.branch("draw"), build.branch("idle")
        results = _drawn(drawing, Drawing(group, lanes, MaskSizes(drawing, group), steps, None))
        roles = [f"drawn_{place}" for place in range(len(results))]
        shapes = [(1, group.total)] if group.tables else [_idle_shape(entry) for entry in group.entries]
        pairs = zip(shapes, roles, strict=True)
        nothing = [idle.fixed(np.zeros(shape, np.bool_), role) for shape, role in pairs]
        drawn = build.choose(training, (drawing, results), (idle, nothing), roles)
        build.nodes[-1].metadata_props[GENERATOR_KEY] = TRAINING
    return Generated(cut_tables(build, group, drawn[0]) if group.tables else drawn, masks, training)


def _drawn(build: MaskBuilder, drawing: Drawing) -> list[ir.Value]:
    return [draw_tables(build, drawing)] if drawing.group.tables else draw_stacked(build, drawing)


def switch_of(build: MaskBuilder, group: Group) -> ir.Value | None:
    """Return a group's switch, bool without dimensions; None where it is constantly true."""
    value = group.training_mode
    if controls.constant_of(value) is not None:
        return None
    if value.shape is not None and len(value.shape) == 0:
        return value
    return build.port("Squeeze", value, role="training", reads=TRAINING)


def _idle_shape(entry: Entry) -> tuple[int, ...]:
    """Return the shape of what stands for a mask while nothing is drawn."""
    return () if entry.inner is None else (1,) * (1 + len(entry.inner))
