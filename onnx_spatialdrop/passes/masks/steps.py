"""The step of a group of nodes: read, checked, and what a fresh draw is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.passes.masks.builder import STEP, MaskBuilder
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Group, SizeOf
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["Steps", "read_steps", "resolved"]


@dataclass(frozen=True)
class Steps:
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


def read_steps(build: MaskBuilder, group: Group, lanes: Wide | Narrow, rows: ir.Value, single: bool) -> Steps:
    """Append what reads and checks the step of ``group``, whether anything is drawn or not.

    Args:
        build: where the nodes go.
        group: the nodes.
        lanes: the generator's arithmetic.
        rows: how many rows the masks have, int64 [1].
        single: step has one element, and no shape depends on what is fed.
    """
    value, constant = group.step, controls.constant_of(group.step)
    if constant is not None and constant.size == 1:
        given = build.port("Reshape", value, build.ints(1), role="steps", reads=STEP)
        if constant.item() >= 0:
            return Steps(given, given, None, None, None)
        # A fresh draw every run must depend on the data, or optimisers take it for a constant and freeze it.
        coins = lanes.coins(build, _nothing(build, group))
        drawn = lanes.draws(build, given, build.constant(np.array([True])), coins)
        return Steps(given, given, None, None, None, drawn)
    if single:
        given = build.port("Reshape", value, build.ints(1), role="step_must_have_1_element", reads=STEP)
        negative = build.add("Less", given, build.ints(0), role="negative")
        fresh = build.add("Cast", negative, role="negative_f", to=ir.DataType.FLOAT)
        return Steps(given, given, None, negative, lanes.coins(build, fresh))
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
    return Steps(given, matched, count, negative, lanes.coins(build, fresh))


def resolved(
    build: MaskBuilder, lanes: Wide | Narrow, steps: Steps, values: ir.Value, strata: int
) -> tuple[ir.Value, ir.Value | None]:
    """Return the draws that steps stand for, and with ``strata`` those of the cycles behind them, and the places there.

    Args:
        build: where the nodes go.
        lanes: the generator's arithmetic.
        steps: the steps.
        values: those of ``steps`` that are wanted: as given, or one a sample.
        strata: the attribute.
    """
    draws = steps.draws or lanes.draws(build, values, steps.negative, steps.coins)
    return (draws, None) if strata == 1 else lanes.with_cycles(build, draws, strata)


def _nothing(build: MaskBuilder, group: Group) -> ir.Value:
    """Return 0, float [1], made of what is fed."""
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
