"""What a runtime did with a case, told from its outputs alone: the operator's bits, a right draw, or what is wrong.

Every draw is a dict of a run's outputs. One word is the verdict; anything else starts with "wrong: ".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from expanding import binomial_tail
from matrix.cases import Case, Probe

from onnx_spatialdrop.operator.reference import dropout_mask

Outputs = dict[str, np.ndarray]
Feeds = dict[str, np.ndarray]

BITS, DRAWN, FED, OFF = "bits", "drawn", "fed", "off"
#: Logits are up to about 30; sums in another order move them by ulps of their type.
TOLERANCE = {"float32": 5e-5, "float16": 0.06}
FRESH = [-1]


def steps(large: int, single: bool = False) -> list[list[int]]:
    """Return what is fed as ``step``: single ones, one a sample (but where ``single``), and two fresh draws."""
    return [[0], [large], [large - 7] if single else [5, 4, 3, large - 7, 1, 1], FRESH, FRESH]


def plan(case: Case, large: int = 2**40 + 3, single: bool = False) -> list[Feeds]:
    """Return the feeds of all runs of a case: one in evaluation, then those of ``steps``; names may be missing."""
    common = {"image": case.images, **case.extra}
    off = {"training_mode": np.array(False), "step": np.array(FRESH)}
    on = [{"training_mode": np.array(True), "step": np.array(step, np.int64)} for step in steps(large, single)]
    runs = [off] if not case.probes else [off, *on]
    return [common | each | _masks_to_feed(case.probes, number) for number, each in enumerate(runs)]


def _masks_to_feed(probes: Sequence[Probe], number: int) -> Feeds:
    """Return other masks for every run, the same for the same run."""
    return {
        each.fed: dropout_mask(each.dims, each.attributes.axes, each.attributes.ratio, each.attributes.seed, [number])
        for each in probes
        if each.fed
    }


def judge(case: Case, runs: Sequence[Outputs], *, switched: bool, large: int = 2**40 + 3, single: bool = False) -> str:
    """Return the verdict on the outputs of the runs of ``plan``.

    Args:
        case: what was run.
        runs: the outputs of its runs, in order.
        switched: the model has switches, so that the first run is one of evaluation.
        large: the argument that ``plan`` was given.
        single: likewise.
    """
    if not case.probes or switched:
        problem = _evaluation(case, runs[0])
        if problem or not case.probes:
            return f"wrong: {problem}" if problem else OFF
    draws = list(runs[1:] if switched else runs)
    try:
        masks = [[_mask(probe, draw) for probe in case.probes] for draw in draws]
    except ValueError as error:
        return f"wrong: {error}"
    problem = _right_draws(case.probes, draws, masks)
    if problem:
        return f"wrong: {problem}"
    if case.probes[0].fed:
        first = len(runs) - len(draws)
        pairs = enumerate(zip(masks, draws, strict=True), first)
        right = all(_are_fed(case.probes, *pair, number) for number, pair in pairs)
        return FED if right else "wrong: masks are not those that were fed"
    if not switched:
        return DRAWN
    drawn = zip(masks, draws, steps(large, single), strict=True)
    if all(_is_expected(case.probes, *each) for each in drawn):
        return BITS
    return DRAWN


def _is_expected(probes: Sequence[Probe], masks: Sequence[np.ndarray], run: Outputs, step: Sequence[int]) -> bool:
    """Return whether the masks of one run are the reference's, as far as they show; a fresh draw has no reference."""
    if step == FRESH:
        return True
    for probe, mask in zip(probes, masks, strict=True):
        attributes = probe.attributes
        expected = dropout_mask(
            mask.shape,
            attributes.axes,
            attributes.ratio,
            attributes.seed,
            step,
            rng=attributes.rng,
            dtype=run[probe.x].dtype,
        )
        seen = np.ones_like(mask) if probe.mask else run[probe.x] > 0
        if not np.array_equal(mask[seen], expected[seen]):
            return False
    return True


def _are_fed(probes: Sequence[Probe], masks: Sequence[np.ndarray], run: Outputs, number: int) -> bool:
    fed = _masks_to_feed(probes, number)
    seen = [np.ones_like(mask) if probe.mask else run[probe.x] > 0 for probe, mask in zip(probes, masks, strict=True)]
    return all(
        np.array_equal(mask[where], fed[probe.fed][where])
        for probe, mask, where in zip(probes, masks, seen, strict=True)
    )


def _evaluation(case: Case, run: Outputs) -> str:
    logits, expected = run[case.output], case.logits
    tolerance = TOLERANCE[str(expected.dtype)]
    difference = np.abs(logits.astype(np.float64) - expected.astype(np.float64)).max()
    if not difference <= tolerance:
        return f"evaluation is {difference:.2g} away from the framework's"
    dropped = [probe for probe in case.probes if probe.mask and not run[probe.mask].astype(bool).all()]
    return "evaluation drops maps" if dropped else ""


def _mask(probe: Probe, run: Outputs) -> np.ndarray:
    """Return which maps were kept; where the mask is no output, one that was 0 before counts as dropped."""
    x, y = run[probe.x], run[probe.y]
    if not ((y == 0) | (y == x)).all():
        raise ValueError("single entries are dropped, not maps")
    kept = (y != 0).astype(bool)
    if not probe.mask:
        return kept
    mask = run[probe.mask].astype(bool)
    if not np.array_equal(kept, mask & (x != 0)):
        raise ValueError("values and mask disagree")
    return mask


def _right_draws(probes: Sequence[Probe], draws: Sequence[Outputs], masks: Sequence[Sequence[np.ndarray]]) -> str:
    for index, probe in enumerate(probes):
        seen = [draw[probe.x] > 0 for draw in draws]
        kept = sum(int(mask[index][where].sum()) for mask, where in zip(masks, seen, strict=True))
        total = sum(int(where.sum()) for where in seen)
        if kept == total:
            return "nothing is dropped"
        if binomial_tail(kept, total, 1 - probe.attributes.ratio) < 1e-6:
            return f"{kept} of {total} maps are kept at ratio {probe.attributes.ratio:.2g}"
        if np.array_equal(masks[-1][index], masks[-2][index]):
            return "every run drops the same maps"
    for first, second in combinations(range(len(probes)), 2):
        if probes[first].attributes.seed == probes[second].attributes.seed:
            continue
        if all(_is_shared(probes, draw, mask, first, second) for draw, mask in zip(draws, masks, strict=True)):
            return "two nodes draw the same mask"
    return ""


def _is_shared(probes: Sequence[Probe], draw: Outputs, mask: Sequence[np.ndarray], first: int, second: int) -> bool:
    """Return whether the masks of two nodes are equal, as far as both show and are long."""
    size = min(mask[first].size, mask[second].size)
    a, b = (mask[index].reshape(-1)[:size] for index in (first, second))
    seen = np.logical_and(*(draw[probes[index].x].reshape(-1)[:size] > 0 for index in (first, second)))
    return np.array_equal(a[seen], b[seen])
