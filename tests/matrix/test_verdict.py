"""The judge of the matrix: it calls right masks right, and each way to be wrong by its name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matrix.cases import Case, Probe
from matrix.verdict import BITS, DRAWN, FRESH, OFF, Outputs, judge, steps

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import dropout_mask

SHAPE = (6, 16, 1, 1)
PROBES = tuple(Probe(spec.Attributes((2, 3), 0.3, seed), f"x{seed}", f"y{seed}", f"mask{seed}") for seed in (11, 22))
LOGITS = np.zeros((6, 10), np.float32)
CASE = Case(Path("none"), LOGITS, LOGITS, {}, "logits", PROBES)


def runs() -> list[Outputs]:
    """Return the outputs of a runtime that does all right: 4 entries a map, of which one map is 0 before."""
    x = np.full(SHAPE, 4.0, np.float32)
    x[0, 0] = 0
    results: list[Outputs] = []
    for number, step in enumerate([None, *steps(2**40 + 3)]):
        outputs = {"logits": LOGITS}
        for probe in PROBES:
            drawn = [1000 + number] if step == FRESH else step
            mask = np.ones(SHAPE, bool)
            if drawn is not None:
                mask = dropout_mask(SHAPE, (2, 3), 0.3, probe.attributes.seed, drawn)
            outputs |= {probe.x: x, probe.y: x * mask, probe.mask: mask}
        results.append(outputs)
    return results


def keep(outputs: Outputs, probe: Probe, mask: np.ndarray) -> None:
    outputs[probe.mask], outputs[probe.y] = mask, outputs[probe.x] * mask


def verdict(changed: list[Outputs]) -> str:
    return judge(CASE, changed, switched=True)


def test_right_masks() -> None:
    assert verdict(runs()) == BITS
    assert judge(CASE, runs()[1:], switched=False) == DRAWN
    assert judge(dataclasses.replace(CASE, probes=()), runs()[:1], switched=True) == OFF


def test_one_other_entry_at_one_step_is_a_draw_and_not_the_bits() -> None:
    changed = runs()
    mask = changed[2][PROBES[0].mask].copy()
    mask[3, 3] = ~mask[3, 3]
    keep(changed[2], PROBES[0], mask)
    assert verdict(changed) == DRAWN


def test_evaluation_that_drops_or_computes_something_else() -> None:
    changed = runs()
    keep(changed[0], PROBES[0], changed[1][PROBES[0].mask])
    assert verdict(changed) == "wrong: evaluation drops maps"
    changed = runs()
    changed[0]["logits"] = LOGITS + 1
    assert verdict(changed) == "wrong: evaluation is 1 away from the framework's"


def test_frozen_shared_and_missing_draws() -> None:
    changed = runs()
    keep(changed[5], PROBES[0], changed[4][PROBES[0].mask])
    assert verdict(changed) == "wrong: every run drops the same maps"
    changed = runs()
    for outputs in changed[1:]:
        keep(outputs, PROBES[1], outputs[PROBES[0].mask])
    assert verdict(changed) == "wrong: two nodes draw the same mask"
    changed = runs()
    for outputs in changed:
        keep(outputs, PROBES[0], np.ones(SHAPE, bool))
    assert verdict(changed) == "wrong: nothing is dropped"


def test_wrong_proportions_single_entries_and_masks_that_lie() -> None:
    changed = runs()
    for outputs in changed[1:]:
        keep(outputs, PROBES[0], ~outputs[PROBES[0].mask])
    assert verdict(changed).startswith("wrong: ")
    assert verdict(changed).endswith("maps are kept at ratio 0.3")
    changed = runs()
    changed[1][PROBES[0].y] = changed[1][PROBES[0].y].clip(max=3)
    assert verdict(changed) == "wrong: single entries are dropped, not maps"
    changed = runs()
    changed[1][PROBES[0].mask] = ~changed[1][PROBES[0].mask]
    assert verdict(changed) == "wrong: values and mask disagree"


def test_without_mask_outputs_maps_that_were_0_before_tell_nothing() -> None:
    case = dataclasses.replace(CASE, probes=tuple(dataclasses.replace(probe, mask="") for probe in PROBES))
    assert judge(case, runs(), switched=True) == BITS
    changed = runs()
    changed[1][PROBES[0].y] = changed[1][PROBES[0].x] * ~changed[1][PROBES[0].mask]
    assert judge(case, changed, switched=True) == DRAWN


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers(value: float) -> None:
    changed = runs()
    changed[0]["logits"] = np.full_like(LOGITS, value)
    assert verdict(changed).startswith("wrong: evaluation is ")
