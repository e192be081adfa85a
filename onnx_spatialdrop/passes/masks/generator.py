"""The generator of a group's masks in standard operators: the operator's own bits, every node's in one go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, TRAINING, MaskBuilder
from onnx_spatialdrop.passes.masks.layouts import Drawing, draw_stacked, draw_tables
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Group
from onnx_spatialdrop.passes.masks.sizes import MaskSizes
from onnx_spatialdrop.passes.masks.steps import read_steps
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["Generated", "Shapes", "generate", "switch_of"]


@dataclass(frozen=True)
class Generated:
    """What a producer of masks makes for a group, one of each for a node.

    Attributes:
        dropped: which entries are dropped, bool, row by row; they have yet to get the mask's shape.
        shapes: the shape to give them: the mask's, or one that broadcasts to it while nothing is drawn.
        masks: makes the value of a mask's shape, given the node's place in the group.
        training: the switch, bool without dimensions; None where it is constantly true.
        open_shapes: whether a size in ``shapes`` may be 0.
    """

    dropped: list[ir.Value]
    shapes: list[ir.Value]
    masks: Callable[[int], ir.Value]
    training: ir.Value | None
    open_shapes: bool = True


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
    drawing = Drawing(group, lanes, sizes, read_steps(build, group, lanes, sizes.rows, single))
    draw = draw_tables if group.tables else draw_stacked
    if training is None or not branch:
        flat = draw(build, drawing)
        if training is not None:
            flat = build.port("And", training, flat, role="if_training", reads=TRAINING)
    else:
        drawing_branch, idle = build.branch("draw"), build.branch("idle")
        nothing = idle.fixed(np.zeros(_idle_shape(group), np.bool_), "flat")
        flat = build.choose(training, (drawing_branch, draw(drawing_branch, drawing)), (idle, nothing), "flat")
        build.nodes[-1].metadata_props[GENERATOR_KEY] = TRAINING
    shapes = Shapes(build, group, sizes, training if branch else None)
    targets = [shapes.target(place) for place in range(len(group.entries))]
    return Generated(_cut(build, group, flat), targets, shapes.mask, training, not group.tables)


def switch_of(build: MaskBuilder, group: Group) -> ir.Value | None:
    """Return a group's switch, bool without dimensions; None where it is constantly true."""
    value = group.training_mode
    if controls.constant_of(value) is not None:
        return None
    if value.shape is not None and len(value.shape) == 0:
        return value
    return build.port("Squeeze", value, role="training", reads=TRAINING)


def _idle_shape(group: Group) -> tuple[int, ...]:
    """Return the shape of what stands for the masks while nothing is drawn: one sample, or one entry a node."""
    if group.tables:
        return (1, sum(entry.length or 0 for entry in group.entries))
    return (1, 1) if len(group.entries) == 1 else (len(group.entries), 1, 1)


def _cut(build: MaskBuilder, group: Group, flat: ir.Value) -> list[ir.Value]:
    count = len(group.entries)
    if count == 1:
        return [flat]
    parts = [f"part_{place}" for place in range(count)]
    if group.tables:
        lengths = build.ints(*(entry.length or 0 for entry in group.entries))
        return list(build.outputs("Split", [flat, lengths], parts, axis=1))
    return list(build.outputs("Split", [flat], parts, axis=0, num_outputs=count))


class Shapes:
    """The shapes of a group's masks, each once."""

    def __init__(self, build: MaskBuilder, group: Group, sizes: MaskSizes, switch: ir.Value | None) -> None:
        self._build, self._group, self._sizes, self._switch = build, group, sizes, switch
        self._targets: dict[Any, ir.Value] = {}
        self._full: dict[Any, ir.Value] = {}

    def target(self, place: int) -> ir.Value:
        """Return the shape to give to what is drawn for a node."""
        entry, build = self._group.entries[place], self._build
        if self._group.tables and entry.inner is not None:
            return build.ints(-1, *(size for size in entry.inner if isinstance(size, int)))
        if self._switch is None:
            return self.mask(place)
        if entry.inner not in self._targets:
            role, ones = f"shape_{len(self._targets)}", self._sizes.rank_ones(entry)
            self._targets[entry.inner] = build.add("Where", self._switch, self.mask(place), ones, role=role)
        return self._targets[entry.inner]

    def mask(self, place: int) -> ir.Value:
        """Return the shape of a node's mask."""
        entry = self._group.entries[place]
        if entry.inner not in self._full:
            self._full[entry.inner] = self._sizes.whole(entry)
        return self._full[entry.inner]
