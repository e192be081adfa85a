"""The two ways to lay out the blocks of a group's masks, and the rounds over them.

*Tables*: each sample takes the same blocks for each node, so block numbers, keys and thresholds are constants. That
needs sizes that the file gives, and small ones. *Stacked*: nodes whose masks have the same sizes draw one after the
other, in a Scan over their keys; a row of a mask takes as many blocks as its entries fill, worked out in the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.passes.masks.builder import MaskBuilder
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Group
from onnx_spatialdrop.passes.masks.sizes import MaskSizes
from onnx_spatialdrop.passes.masks.steps import Steps, resolved
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["Drawing", "draw_stacked", "draw_tables"]

#: From lane, half of the block, row and block to rows of words.
_BY_ROW: Final = [2, 3, 0, 1]


@dataclass(frozen=True)
class Drawing:
    """What a layout draws: a group, by the generator's arithmetic, at the group's steps and sizes."""

    group: Group
    lanes: Wide | Narrow
    sizes: MaskSizes
    steps: Steps

    @property
    def strata(self) -> int:
        """Return over how many steps the draws are balanced."""
        return self.group.entries[0].attributes.strata

    def keys(self) -> npt.NDArray[Any]:
        """Return the keys of the rounds, [2, 10, 1, nodes]."""
        return self.lanes.key_table([entry.attributes.seed for entry in self.group.entries])

    def limits(self) -> npt.NDArray[np.int64]:
        """Return the thresholds, one a node."""
        return np.array([entry.attributes.threshold() for entry in self.group.entries], np.int64)

    def words(
        self, build: MaskBuilder, state: list[ir.Value], keys: ir.Value, limit: ir.Value, places: ir.Value | None
    ) -> ir.Value:
        """Return which entries are dropped, bool [rows, blocks, 2, 2]: the rounds, the comparison, words in order."""
        roles = [f"key_{number}" for number in range(philox.ROUNDS)]
        every = build.outputs("Split", [keys], roles, axis=1, num_outputs=philox.ROUNDS)
        for number, key in enumerate(every):
            state = self.lanes.round(build, state, key, number)
        balanced = None if places is None else (self.strata, places)
        dropped = self.lanes.dropped(build, state, limit, balanced)
        return build.add("Transpose", dropped, role="by_row", perm=_BY_ROW)


def draw_tables(build: MaskBuilder, drawing: Drawing) -> ir.Value:
    """Return which entries are dropped, bool [samples, entries of all nodes].

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
    draws, places = resolved(build, drawing.lanes, drawing.steps, drawing.steps.matched, drawing.strata)
    if places is not None:
        counter = build.add("Concat", counter, counter, role="blocks_twice", axis=2)
    state = drawing.lanes.start(build, counter, draws, None)
    keys = build.constant(drawing.keys())
    if len(lengths) > 1:
        keys = build.add("Gather", keys, build.constant(node), role="keys", axis=3)
    limits = build.constant(drawing.lanes.limits(drawing.limits()[node]))
    turned = drawing.words(build, state, keys, limits, places)
    flat = build.add("Reshape", turned, build.ints(0, 4 * len(node)), role="flat")
    if even:
        return flat
    entries = [4 * first + np.arange(length) for first, length in zip(np.cumsum(blocks) - blocks, lengths, strict=True)]
    rows = build.add("Reshape", column, build.ints(-1, 1), role="rows_of_entries")
    begins = build.add("Mul", rows, build.constant(np.repeat(lengths, lengths)), role="row_begins")
    within = build.add("Mod", begins, build.ints(4), role="within_block")
    taken = build.add("Add", within, build.constant(np.concatenate(entries)), role="taken")
    return build.add("GatherElements", flat, taken, role="entries", axis=1)


def _samples(build: MaskBuilder, drawing: Drawing) -> ir.Value:
    """Return the number of each sample in its row, int64 [1, 1, samples, 1]: 0 where each has a row of its own."""
    rows, count = drawing.group.rows, drawing.steps.count
    if isinstance(rows, int):
        samples = build.constant(np.arange(rows, dtype=np.int64))
    else:
        end = build.add("Squeeze", drawing.sizes.rows, role="rows_0d")
        samples = build.add("Range", build.constant(np.int64(0)), end, build.constant(np.int64(1)), role="samples")
    if count is not None:
        one_row = build.add("Cast", build.add("Equal", count, build.ints(1), role="one_row"), role="one_row_i", to=7)
        samples = build.add("Mul", samples, one_row, role="in_row")
    return build.add("Reshape", samples, build.ints(1, 1, -1, 1), role="sample_of_row")


def draw_stacked(build: MaskBuilder, drawing: Drawing) -> ir.Value:
    """Return which entries are dropped, bool [nodes, rows, entries of a row]; without the nodes where there is one."""
    steps, count, per_row = drawing.steps, build.ints(1), drawing.sizes.rows
    if steps.count is not None:
        some = build.add("Max", steps.count, build.ints(1), role="some_rows")
        checked = build.add("Shape", steps.matched, role="checked_rows")
        count, per_row = steps.count, build.add("Div", checked, some, role="rows_a_step")
    length = build.add("Mul", drawing.sizes.length(), per_row, role="row_length")
    blocks = build.add("Div", build.add("Add", length, build.ints(3), role="up"), build.ints(4), role="blocks")
    end = build.add("Squeeze", blocks, role="blocks_0d")
    index = build.add("Range", build.constant(np.int64(0)), end, build.constant(np.int64(1)), role="index")
    draws, places = resolved(build, drawing.lanes, steps, steps.given, drawing.strata)
    lines = count if places is None else build.add("Add", count, count, role="rows_twice")
    plane = build.add("Concat", build.ints(1, 1), lines, blocks, role="plane", axis=0)
    state = drawing.lanes.start(build, index, draws, plane)
    padded = build.add("Mul", blocks, build.ints(4), role="padded_row")
    shape = build.add("Concat", count, padded, role="padded_shape", axis=0)

    def draw(inner: MaskBuilder, keys: ir.Value, limit: ir.Value) -> ir.Value:
        turned = drawing.words(inner, state, keys, limit, places)
        flat = inner.add("Reshape", turned, shape, role="flat", allowzero=1)
        return inner.add("Slice", flat, build.ints(0), length, build.ints(1), role="row")

    keys = drawing.keys()
    limits = drawing.lanes.limits(drawing.limits())
    if len(limits) == 1:
        return draw(build, build.constant(keys), build.constant(limits[0]))
    body = build.branch("each")
    inputs = [body.input("keys", keys.dtype, (*keys.shape[:3], 1)), body.input("limit", limits.dtype, ())]
    keys = keys[..., np.newaxis, :]
    scanned = [build.constant(keys), build.constant(limits)]
    row = draw(body, *inputs)
    row.shape = ir.Shape(
        [None, None]
    )  # ONNX Runtime has to know the rank, and may not know that of what sizes come from
    return build.scan(body, inputs, row, scanned, [keys.ndim - 1, 0], "flat")
