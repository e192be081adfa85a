"""The step of a group of nodes: read, checked, and what a fresh draw is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.passes.masks.builder import STEP, MaskBuilder
from onnx_spatialdrop.passes.masks.narrow import Narrow
from onnx_spatialdrop.passes.masks.plan import Group, SizeOf
from onnx_spatialdrop.passes.masks.sizes import MaskSizes
from onnx_spatialdrop.passes.masks.wide import Wide

__all__ = ["Steps", "read_steps"]


@dataclass(frozen=True)
class Steps:
    """The step of a group: checked, int64, and how many there are.

    Attributes:
        values: one, or one a sample.
        count: how many there are, int64 [1]; None where there is one.
        one: whether there is one, bool [1]; None where there is.
        fed: see Wide.draws.
        draws: what they resolve to, where that is known already.
    """

    values: ir.Value
    count: ir.Value | None = None
    one: ir.Value | None = None
    fed: ir.Value | None = None
    draws: ir.Value | None = None

    def resolved(
        self, build: MaskBuilder, lanes: Wide | Narrow, strata: int, rows: ir.Value | None = None
    ) -> tuple[ir.Value, ir.Value | None]:
        """Return the draws that steps stand for, and with ``strata`` those of the cycles behind them, and the places.

        Args:
            build: where the nodes go.
            lanes: the generator's arithmetic.
            strata: the attribute.
            rows: how many there have to be, int64 [1]; None for as many as there are.
        """
        values = self.values
        if rows is not None and self.draws is None:
            values = build.add("Expand", values, rows, role="steps_of_rows")
        draws = self.draws or lanes.draws(build, values, self.fed)
        return (draws, None) if strata == 1 else lanes.with_cycles(build, draws, strata)


def read_steps(
    build: MaskBuilder, group: Group, lanes: Wide | Narrow, sizes: MaskSizes, *, branch: bool, single: bool
) -> Steps:
    """Append what reads and checks the step of ``group``, whether anything is drawn or not.

    Args:
        build: where the nodes go.
        group: the nodes.
        lanes: the generator's arithmetic.
        sizes: the sizes of the masks.
        branch: an If is allowed; then one step, which needs no check, costs none.
        single: step has one element, and no shape depends on what is fed.
    """
    value, constant = group.step, controls.constant_of(group.step)
    if constant is not None and constant.size == 1:
        given = build.port("Reshape", value, build.ints(1), role="steps", reads=STEP)
        if constant.item() >= 0:
            return Steps(given)
        # A fresh draw every run must depend on the data, or optimisers take it for a constant and freeze it.
        return Steps(given, draws=lanes.draws(build, given, _never(build, group)))
    if single:
        given = build.port("Reshape", value, build.ints(1), role="step_must_have_1_element", reads=STEP)
        return Steps(given, fed=build.add("Less", given, build.ints(0), role="fed"))
    if value.shape is not None and len(value.shape) == 1:
        given, count = value, build.port("Shape", value, role="count", reads=STEP)
    else:
        given = build.port("Reshape", value, build.ints(-1), role="steps", reads=STEP)
        count = build.add("Shape", given, role="count")
    one = build.add("Equal", count, build.ints(1), role="one_step")
    if not branch:
        return Steps(_checked(build, given, count, one, sizes.rows), count, one, one)
    single_step, several = build.branch("one"), build.branch("several")
    # No Identity: eliminating one of a value outside the branch, onnx_ir stops.
    passed = single_step.add("Reshape", given, single_step.ints(1), role="step")
    checked = _checked(several, given, count, None, MaskSizes(several, group).rows)
    branches = ((single_step, [passed]), (several, [checked]))
    values = build.choose(one, *branches, ["checked_steps"], ir.DataType.INT64)
    return Steps(values[0], count, one, one)


def _checked(build: MaskBuilder, given: ir.Value, count: ir.Value, one: ir.Value | None, rows: ir.Value) -> ir.Value:
    """Return steps, one a sample and none of which is negative; or one, if ``one`` can say so: else nothing fits."""
    negative = build.add("Less", given, build.ints(0), role="negative_steps")
    negatives = build.add("Cast", negative, role="negative_f", to=ir.DataType.FLOAT)
    surplus = build.add("ReduceSum", negatives, role="negatives", keepdims=1)
    surplus = build.add("Cast", surplus, role="surplus", to=ir.DataType.INT64)
    wanted = rows
    if one is not None:
        surplus = build.add("Where", one, build.ints(0), surplus, role="surplus_of_many")
        wanted = build.add("Where", one, count, rows, role="wanted")
    matched = build.add("Reshape", given, wanted, role="step_must_have_1_or_N_elements", allowzero=1)
    shape = build.add("Add", wanted, surplus, role="wanted_if_not_negative")
    return build.add("Reshape", matched, shape, role="step_must_have_1_or_N_elements_not_negative", allowzero=1)


def _never(build: MaskBuilder, group: Group) -> ir.Value:
    """Return false, bool [1], made of what is fed."""
    data = next((entry.x for entry in group.entries if entry.x.graph is group.home), None)
    if data is None and isinstance(group.rows, SizeOf):
        data = group.rows.value
    if data is None:
        data = group.step
    flat = build.add("Reshape", data, build.ints(-1), role="data")
    first = build.add("Slice", flat, build.ints(0), build.ints(1), role="first")
    number = build.add("Cast", first, role="first_f", to=ir.DataType.FLOAT)
    below = build.add("Cast", build.add("Less", number, number, role="below"), role="below_f", to=1)
    none = build.add("ReduceSum", below, role="none", keepdims=1)  # has an element where the data have none
    return build.add("Less", none, build.constant(np.zeros(1, np.float32)), role="never")
