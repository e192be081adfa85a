"""The generator of a group's masks in standard operators: the operator's own bits, every node's in one go.

Rows of a mask are laid out in one of two ways. *Tables*: each sample takes the same blocks, so block numbers, keys and
thresholds are constants; that needs sizes that are known, small, and multiples of four, the words of a block.
*Counted*: a row of the mask takes as many blocks as its entries fill, worked out in the run; that fits everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.operator import philox
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, STEP, TRAINING, MaskBuilder
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Group, SizeOf
from onnx_spatialdrop.passes.masks.sizes import MaskSizes
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["MAX_TABLE", "Generated", "generate"]

#: Tables take 200 bytes for a block of four entries.
MAX_TABLE: Final = 1 << 13


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


@dataclass(frozen=True)
class _Steps:
    """The step of a group: as it is, one a sample and checked, how many there are, and what fresh draws are made of.

    ``count`` is None for one step; ``negative`` and ``coins`` are None for one that asks for no fresh draw. ``draws``,
    where it is there, is what they resolve to.
    """

    given: ir.Value
    matched: ir.Value
    count: ir.Value | None
    negative: ir.Value | None
    coins: ir.Value | None
    draws: ir.Value | None = None


def generate(
    build: MaskBuilder, group: Group, lanes: Wide | Narrow, *, branch: bool = True, single: bool = False
) -> Generated:
    """Append a generator to ``build``.

    1. Steps are read, and checked, whether anything is drawn or not.
    2. With ``branch`` an If leaves the rest out while ``training_mode`` is false; else everything is drawn, in vain.
    3. A step that is a constant, one number that is not negative, needs no check and no fresh draw.
    4. With ``single``, step has one element, and no shape depends on what is fed.
    """
    return _Writer(build, group, lanes, single).write(branch)


class _Writer:
    def __init__(self, build: MaskBuilder, group: Group, lanes: Wide | Narrow, single: bool) -> None:
        self._build, self._group, self._lanes, self._single = build, group, lanes, single
        self._sizes = MaskSizes(build, group)
        lengths = [entry.length for entry in group.entries]
        self._count = len(lengths)
        self._strata = group.entries[0].attributes.strata
        self._even = all(length is not None and length % 4 == 0 for length in lengths)
        self._total = sum(length or 0 for length in lengths)
        self._targets: dict[Any, ir.Value] = {}
        self._full: dict[Any, ir.Value] = {}
        self._tables = self._even and 0 < self._total <= MAX_TABLE

    def write(self, branch: bool) -> Generated:
        build, training = self._build, self._training()
        steps = self._steps()
        draw = self._draw_tables if self._tables else self._draw_counted
        if training is None or not branch:
            results = draw(build, steps)
            if training is not None:
                results = [build.port("And", training, results[0], role="if_training", reads=TRAINING), *results[1:]]
        else:
            drawing, idle = build.branch("draw"), build.branch("idle")
            drawn, nothing = draw(drawing, steps), self._idle(idle)
            roles = ["flat", "cut"][: len(drawn)]
            results = [*build.choose(training, (drawing, drawn), (idle, nothing[: len(drawn)]), roles)]
            build.nodes[-1].metadata_props[GENERATOR_KEY] = TRAINING
        switch = training if branch else None
        shapes = [self._shape(place, switch) for place in range(self._count)]
        return Generated(self._cut(*results), shapes, self._mask_shape, training, not self._tables)

    def _training(self) -> ir.Value | None:
        value = self._group.training_mode
        if controls.constant_of(value) is not None:
            return None
        if value.shape is not None and len(value.shape) == 0:
            return value
        return self._build.port("Squeeze", value, role="training", reads=TRAINING)

    def _steps(self) -> _Steps:
        build, value, rows = self._build, self._group.step, self._sizes.rows
        constant = controls.constant_of(value)
        if constant is not None and constant.size == 1:
            given = build.port("Reshape", value, build.ints(1), role="steps", reads=STEP)
            if constant.item() >= 0:
                return _Steps(given, given, None, None, None)
            # A fresh draw every run must depend on the data, or optimisers take it for a constant and freeze it.
            coins = self._lanes.coins(build, self._nothing())
            drawn = self._lanes.draws(build, given, build.constant(np.array([True])), coins)
            return _Steps(given, given, None, None, None, drawn)
        if self._single:
            given = build.port("Reshape", value, build.ints(1), role="step_must_have_1_element", reads=STEP)
            negative = build.add("Less", given, build.ints(0), role="negative")
            fresh = build.add("Cast", negative, role="negative_f", to=ir.DataType.FLOAT)
            return _Steps(given, given, None, negative, self._lanes.coins(build, fresh))
        given = build.port("Reshape", value, build.ints(-1), role="steps", reads=STEP)
        negative = build.add("Less", given, build.ints(0), role="negative")
        negatives = build.add("Cast", negative, role="negative_f", to=ir.DataType.FLOAT)
        fresh = build.add("ReduceSum", negatives, role="negatives", keepdims=1)
        count = build.add("Shape", given, role="count")
        # One element, or one a sample, none of which is negative: else a shape that nothing fits.
        square = build.add("Mul", count, count, role="count_squared")
        others = build.add("Sub", square, build.ints(1), role="others")
        wrong = build.add("Mul", build.add("Cast", fresh, role="negatives_i", to=7), others, role="surplus")
        wanted = build.add("Add", rows, wrong, role="wanted")
        spread = build.add("Expand", given, rows, role="step_must_have_1_or_N_elements")
        matched = build.add("Reshape", spread, wanted, role="step_must_have_1_or_N_elements_not_negative", allowzero=1)
        return _Steps(given, matched, count, negative, self._lanes.coins(build, fresh))

    def _nothing(self) -> ir.Value:
        """Return 0, float [1], made of what is fed."""
        build, group = self._build, self._group
        data = next((entry.x for entry in group.entries if entry.x.graph is group.home), None)
        if data is None and isinstance(group.rows, SizeOf):
            data = group.rows.value
        if data is None:
            data = group.step
        first = build.add(
            "Slice", build.add("Reshape", data, build.ints(-1), role="data"), build.ints(0), build.ints(1), role="first"
        )
        number = build.add("Cast", first, role="first_f", to=ir.DataType.FLOAT)
        never = build.add("Less", number, number, role="never")
        return build.add("ReduceSum", build.add("Cast", never, role="never_f", to=1), role="nothing", keepdims=1)

    def _draw_tables(self, build: MaskBuilder, steps: _Steps) -> list[ir.Value]:
        lengths = [entry.length or 0 for entry in self._group.entries]
        blocks = np.concatenate([np.arange(length // 4) for length in lengths])
        strides = np.repeat([length // 4 for length in lengths], [length // 4 for length in lengths])
        nodes = np.repeat(np.arange(self._count), [length // 4 for length in lengths])
        rows = self._group.rows
        if isinstance(rows, int):
            samples = build.constant(np.arange(rows, dtype=np.int64))
        else:
            end = build.add("Squeeze", self._sizes.rows, role="rows_0d")
            samples = build.add("Range", build.constant(np.int64(0)), end, build.constant(np.int64(1)), role="samples")
        if steps.count is not None:
            one_row = build.add("Equal", steps.count, build.ints(1), role="one_row")
            samples = build.add("Mul", samples, build.add("Cast", one_row, role="one_row_i", to=7), role="in_row")
        column = build.add("Reshape", samples, build.ints(1, 1, -1, 1), role="sample_of_row")
        first = build.add("Mul", column, build.constant(strides.astype(np.int64)), role="first_block")
        counter = build.add("Add", first, build.constant(blocks.astype(np.int64)), role="blocks")
        draws, places = self._resolved(build, steps, steps.matched)
        if places is not None:
            counter = build.add("Concat", counter, counter, role="blocks_twice", axis=2)
        state = self._lanes.start(build, counter, draws, None)
        table = build.constant(self._key_table())
        keys = table if self._count == 1 else build.add("Gather", table, build.constant(nodes), role="keys", axis=3)
        every = build.outputs("Split", [keys], [f"key_{n}" for n in range(philox.ROUNDS)], axis=1, num_outputs=10)
        for n in range(philox.ROUNDS):
            state = self._lanes.round(build, state, every[n], n)
        dropped = self._lanes.dropped(build, state, self._limits()[nodes], None, self._balanced(places))
        turned = build.add("Transpose", dropped, role="by_row", perm=[2, 3, 0, 1])
        return [build.add("Reshape", turned, build.ints(0, self._total), role="flat")]

    def _draw_counted(self, build: MaskBuilder, steps: _Steps) -> list[ir.Value]:
        count, per_row = build.ints(1), self._sizes.rows
        if steps.count is not None:
            some = build.add("Max", steps.count, build.ints(1), role="some_rows")
            count, per_row = steps.count, build.add("Div", self._checked_rows(build, steps), some, role="rows_a_step")
        lengths = build.add("Mul", self._sizes.lengths(), per_row, role="row_lengths")
        blocks = build.add("Div", build.add("Add", lengths, build.ints(3), role="up"), build.ints(4), role="blocks")
        total, index, node = self._places(build, blocks)
        draws, places = self._resolved(build, steps, steps.given)
        lines = count if places is None else build.add("Add", count, count, role="rows_twice")
        plane = build.add("Concat", build.ints(1, 1), lines, total, role="plane", axis=0)
        state = self._lanes.start(build, index, draws, plane)
        table = self._key_table()
        for n in range(philox.ROUNDS):
            key = build.constant(table[:, n : n + 1])
            if node is not None:
                key = build.add("Gather", key, node, role=f"key_{n}", axis=3)
            state = self._lanes.round(build, state, key, n)
        dropped = self._lanes.dropped(build, state, self._limits(), node, self._balanced(places))
        turned = build.add("Transpose", dropped, role="by_row", perm=[2, 3, 0, 1])
        padded = build.add("Mul", total, build.ints(4), role="padded_row")
        shape = build.add("Concat", count, padded, role="padded_shape", axis=0)
        flat = build.add("Reshape", turned, shape, role="flat", allowzero=1)
        if self._count == 1:
            return [build.add("Slice", flat, build.ints(0), lengths, build.ints(1), role="row")]
        if self._even:
            return [flat, lengths]
        rest = build.add("Sub", build.add("Mul", blocks, build.ints(4), role="padded"), lengths, role="rests")
        pairs = build.add("Concat", lengths, rest, role="lengths_and_rests", axis=0)
        pairs = build.add("Reshape", pairs, build.ints(2, self._count), role="two_rows")
        pairs = build.add("Transpose", pairs, role="pairs", perm=[1, 0])
        return [flat, build.add("Reshape", pairs, build.ints(-1), role="cut")]

    def _resolved(self, build: MaskBuilder, steps: _Steps, values: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """Return the draws, and with ``strata`` those of the cycles behind them, and places in the cycles."""
        draws = steps.draws or self._lanes.draws(build, values, steps.negative, steps.coins)
        return (draws, None) if self._strata == 1 else self._lanes.with_cycles(build, draws, self._strata)

    def _balanced(self, places: ir.Value | None) -> tuple[int, ir.Value] | None:
        return None if places is None else (self._strata, places)

    def _checked_rows(self, build: MaskBuilder, steps: _Steps) -> ir.Value:
        return build.add("Shape", steps.matched, role="checked_rows")

    def _places(self, build: MaskBuilder, blocks: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Return how many blocks a row of all nodes has, the number of each in its node, and which node that is."""
        zero, one = build.constant(np.int64(0)), build.constant(np.int64(1))
        if self._count == 1:
            end = build.add("Squeeze", blocks, role="blocks_0d")
            return blocks, build.add("Range", zero, end, one, role="index"), None
        ends = build.add("CumSum", blocks, zero, role="ends")
        starts = build.add("Sub", ends, blocks, role="starts")
        total = build.add("ReduceSum", blocks, role="total", keepdims=1)
        index = build.add("Range", zero, build.add("Squeeze", total, role="total_0d"), one, role="index")
        longer = build.add("Add", total, build.ints(1), role="longer")
        marks = build.add("Expand", build.ints(0), longer, role="no_marks")
        ones = build.ints(*[1] * self._count)
        marks = build.add("ScatterElements", marks, ends, ones, role="marks", axis=0, reduction="add")
        nodes = build.add("CumSum", marks, zero, role="nodes_and_end")
        node = build.add("Slice", nodes, build.ints(0), total, role="nodes")
        before = build.add("Gather", starts, node, role="before", axis=0)
        return total, build.add("Sub", index, before, role="block"), node

    def _idle(self, build: MaskBuilder) -> list[ir.Value]:
        """Return what stands for ``flat`` and ``cut`` while nothing is drawn: one entry a node, or one sample."""
        entries = self._total if self._tables else self._count
        false = build.fixed(np.zeros((1, entries), np.bool_), "flat")
        cut = [1] * self._count if self._even else [1, 0] * self._count
        return [false, build.fixed(np.array(cut, np.int64), "cut")] if not self._tables else [false]

    def _cut(self, flat: ir.Value, cut: ir.Value | None = None) -> list[ir.Value]:
        if self._count == 1:
            return [flat]
        parts = [f"part_{place}" for place in range(self._count)]
        if self._tables:
            cut = self._build.ints(*(entry.length or 0 for entry in self._group.entries))
        if self._even:
            return list(self._build.outputs("Split", [flat, cut], parts, axis=1))
        roles = [role for place, part in enumerate(parts) for role in (part, f"rest_{place}")]
        return list(self._build.outputs("Split", [flat, cut], roles, axis=1))[::2]

    def _shape(self, place: int, switch: ir.Value | None) -> ir.Value:
        entry = self._group.entries[place]
        if self._tables and entry.inner is not None:
            return self._build.ints(-1, *(size for size in entry.inner if isinstance(size, int)))
        full = self._mask_shape(place)
        if switch is None:
            return full
        if entry.inner not in self._targets:
            ones = self._sizes.rank_ones(entry)
            role = f"shape_{len(self._targets)}"
            self._targets[entry.inner] = self._build.add("Where", switch, full, ones, role=role)
        return self._targets[entry.inner]

    def _mask_shape(self, place: int) -> ir.Value:
        entry = self._group.entries[place]
        if entry.inner not in self._full:
            self._full[entry.inner] = self._sizes.whole(entry)
        return self._full[entry.inner]

    def _key_table(self) -> npt.NDArray[Any]:
        return self._lanes.key_table([entry.attributes.seed for entry in self._group.entries])

    def _limits(self) -> npt.NDArray[np.int64]:
        return np.array([entry.attributes.threshold() for entry in self._group.entries], np.int64)
