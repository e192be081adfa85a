"""The two ways to lay out the blocks of a group's masks, and the rounds over them.

*Tables*: each sample takes the same blocks for each node, so block numbers, keys and thresholds are constants. That
needs sizes that the file gives, and small ones. *Stacked*: nodes whose masks have the same sizes draw one after the
other, in a Scan over their keys; a row of a mask takes as many blocks as its entries fill, worked out in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.passes.masks.builder import TRAINING, MaskBuilder
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Group
from onnx_spatialdrop.passes.masks.sizes import MaskSizes
from onnx_spatialdrop.passes.masks.steps import Steps
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["Drawing", "cut_tables", "draw_stacked", "draw_tables"]

#: Where the words of a block lie beside each other: S holds the words 0 and 2, C the others.
_PLACES: Final = np.array([0, 2, 1, 3])


@dataclass(frozen=True)
class Drawing:
    """What a layout draws: a group, by the generator's arithmetic, at the group's steps and sizes.

    Attributes:
        gate: what has to be true for anything to be dropped; None where nothing has to be.
    """

    group: Group
    lanes: Wide | Narrow
    sizes: MaskSizes
    steps: Steps
    gate: ir.Value | None

    @property
    def strata(self) -> int:
        """Return over how many steps the draws are balanced."""
        return self.group.entries[0].attributes.strata

    def keys(self) -> npt.NDArray[Any]:
        """Return the keys of the rounds, [10, 2, nodes]."""
        return self.lanes.key_table([entry.attributes.seed for entry in self.group.entries])

    def limits(self) -> npt.NDArray[np.int64]:
        """Return the thresholds, one a node."""
        return np.array([entry.attributes.threshold() for entry in self.group.entries], np.int64)

    def words(
        self, build: MaskBuilder, state: list[ir.Value], keys: ir.Value, limit: ir.Value, places: ir.Value | None
    ) -> ir.Value:
        """Return which entries are dropped, bool [rows, 4, blocks], as Wide.dropped has them: rounds and comparison."""
        roles = [f"key_{number}" for number in range(philox.ROUNDS)]
        every = build.outputs("Split", [keys], roles, axis=0, num_outputs=philox.ROUNDS)
        for number, key in enumerate(every):
            state = self.lanes.round(build, state, key, number)
        balanced = None if places is None else (self.strata, places)
        return self.lanes.dropped(build, state, limit, balanced)

    def gated(self, build: MaskBuilder, dropped: ir.Value) -> ir.Value:
        """Return which entries are dropped if ``gate`` is true."""
        return (
            dropped if self.gate is None else build.port("And", self.gate, dropped, role="if_training", reads=TRAINING)
        )


def _in_order(build: MaskBuilder, dropped: ir.Value) -> ir.Value:
    """Return which entries are dropped, bool [rows, blocks, 4], a block's words in order.

    In two nodes: ONNX Runtime moves one axis fast, and several slowly.
    """
    sorted_words = build.add("Gather", dropped, build.constant(_PLACES), role="words_in_order", axis=1)
    return build.add("Transpose", sorted_words, role="by_row", perm=[0, 2, 1])


def draw_tables(build: MaskBuilder, drawing: Drawing) -> ir.Value:
    """Return which entries are dropped, bool [samples, entries of all nodes], in an order that ``cut_tables`` knows.

    A sample's entries begin at a multiple of their number, in the row of a step that all samples share; where that is
    no multiple of four, they begin within a block, and one block more may be needed.
    """
    lengths = np.array([entry.length for entry in drawing.group.entries], np.int64)
    even = not (lengths % 4).any()
    blocks = lengths // 4 if even else (lengths + 6) // 4
    node = np.repeat(np.arange(len(lengths)), blocks)
    number = np.concatenate([np.arange(count) for count in blocks])
    column = _samples(build, drawing)
    if even:
        first = build.add("Mul", column, build.constant((lengths // 4)[node]), role="first_block")
    else:
        start = build.add("Mul", column, build.constant(lengths[node]), role="first_entry")
        first = build.add("Div", start, build.ints(4), role="first_block")
    counter = build.add("Add", first, build.constant(number), role="blocks")
    rows_of_cycles = None if drawing.strata == 1 else drawing.sizes.rows
    draws, places = drawing.steps.resolved(build, drawing.lanes, drawing.strata, rows_of_cycles)
    if places is not None:
        counter = build.add("Concat", counter, counter, role="blocks_twice", axis=0)
    state = drawing.lanes.start(build, counter, draws)
    keys = build.constant(drawing.keys())
    if len(lengths) > 1:
        keys = build.add("Gather", keys, build.constant(node), role="keys", axis=2)
    limits = build.constant(drawing.lanes.limits(drawing.limits()[node]))
    words = drawing.words(build, state, keys, limits, places)
    if even:
        return drawing.gated(build, build.add("Reshape", words, build.ints(0, 4 * len(node)), role="flat"))
    flat = build.add("Reshape", _in_order(build, words), build.ints(0, 4 * len(node)), role="words_of_rows")
    entries = [4 * first + np.arange(length) for first, length in zip(np.cumsum(blocks) - blocks, lengths, strict=True)]
    rows = build.add("Reshape", column, build.ints(-1, 1), role="rows_of_entries")
    begins = build.add("Mul", rows, build.constant(np.repeat(lengths, lengths)), role="row_begins")
    within = build.add("Mod", begins, build.ints(4), role="within_block")
    taken = build.add("Add", within, build.constant(np.concatenate(entries)), role="taken")
    return drawing.gated(build, build.add("GatherElements", flat, taken, role="flat", axis=1))


def cut_tables(build: MaskBuilder, group: Group, flat: ir.Value) -> list[ir.Value]:
    """Return which entries each node drops, bool, of the mask's shape, from what ``draw_tables`` returned."""
    lengths = np.array([entry.length for entry in group.entries], np.int64)
    place = np.arange(lengths.sum())
    if not (lengths % 4).any():
        place = _PLACES[place % 4] * (len(place) // 4) + place // 4
    made = list[ir.Value]()
    for number, (entry, places) in enumerate(zip(group.entries, np.split(place, np.cumsum(lengths)[:-1]), strict=True)):
        inner = [size for size in entry.inner or () if isinstance(size, int)]
        made.append(build.add("Gather", flat, build.constant(places.reshape(inner)), role=f"dropped_{number}", axis=1))
    return made


def _samples(build: MaskBuilder, drawing: Drawing) -> ir.Value:
    """Return the number of each sample in its row, int64 [samples, 1, 1]: 0 where each has a row of its own."""
    rows, one = drawing.group.rows, drawing.steps.one
    if isinstance(rows, int):
        samples = build.constant(np.arange(rows, dtype=np.int64))
    else:
        end = build.add("Squeeze", drawing.sizes.rows, role="rows_0d")
        samples = build.add("Range", build.constant(np.int64(0)), end, build.constant(np.int64(1)), role="samples")
    if one is not None:
        samples = build.add("Where", one, samples, build.ints(0), role="in_row")
    return build.add("Reshape", samples, build.ints(-1, 1, 1), role="sample_of_row")


def draw_stacked(build: MaskBuilder, drawing: Drawing) -> list[ir.Value]:
    """Return which entries each node drops, bool, of the mask's shape."""
    steps, count, per_row = drawing.steps, build.ints(1), drawing.sizes.rows
    if steps.count is not None:
        count = steps.count
        per_row = build.add("Where", steps.one, per_row, build.ints(1), role="rows_a_step")
    length = build.add("Mul", drawing.sizes.length(), per_row, role="row_length")
    blocks = build.add("Div", build.add("Add", length, build.ints(3), role="up"), build.ints(4), role="blocks")
    end = build.add("Squeeze", blocks, role="blocks_0d")
    index = build.add("Range", build.constant(np.int64(0)), end, build.constant(np.int64(1)), role="index")
    draws, places = steps.resolved(build, drawing.lanes, drawing.strata)
    state = drawing.lanes.start(build, index, draws)
    padded = build.add("Mul", blocks, build.ints(4), role="padded_row")
    shape = build.add("Concat", count, padded, role="padded_shape", axis=0)

    def draw(inner: MaskBuilder, keys: ir.Value, limit: ir.Value) -> ir.Value:
        words = _in_order(inner, drawing.words(inner, state, keys, limit, places))
        flat = inner.add("Reshape", words, shape, role="flat", allowzero=1)
        return inner.add("Slice", flat, build.ints(0), length, build.ints(1), role="row")

    keys = drawing.keys()
    limits = drawing.lanes.limits(drawing.limits())
    if len(limits) == 1:
        flat = draw(build, build.constant(keys), build.constant(limits[0]))
        return _shaped(build, drawing, [drawing.gated(build, flat)])
    body = build.branch("each")
    inputs = [body.input("keys", keys.dtype, (*keys.shape[:2], 1)), body.input("limit", limits.dtype, ())]
    keys = keys[..., np.newaxis, :]
    scanned = [build.constant(keys), build.constant(limits)]
    row = draw(body, *inputs)
    row.shape = ir.Shape([None, None])  # ONNX Runtime may not know the rank of what sizes come from
    flat = drawing.gated(build, build.scan(body, inputs, row, scanned, [keys.ndim - 1, 0], "flat"))
    roles = [f"part_{place}" for place in range(len(limits))]
    return _shaped(build, drawing, build.outputs("Split", [flat], roles, axis=0, num_outputs=len(limits)))


def _shaped(build: MaskBuilder, drawing: Drawing, parts: Sequence[ir.Value]) -> list[ir.Value]:
    shape = drawing.sizes.whole(drawing.group.entries[0])
    return [
        build.add("Reshape", part, shape, role=f"dropped_{place}", allowzero=build.allowzero)
        for place, part in enumerate(parts)
    ]
