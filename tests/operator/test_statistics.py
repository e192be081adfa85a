"""The masks are what they claim to be: fair at the ratio, and independent along everything that should be.

Every test statistic is a count that is binomial if the claim holds, so its bounds are exact; seeds are fixed, so
nothing flickers. A power control runs the same tests on generators with known faults, which must fail.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from onnx_spatialdrop import reference

RATIOS = [0.01, 0.1, 0.25, 0.5, 0.9, 0.999]
N, C = 2_000, 500

Draw = Callable[[float, int, int], np.ndarray]


def drawn(ratio: float, seed: int, step: int) -> np.ndarray:
    """Return the mask of X with shape (N, C, 1, 1), as (N, C)."""
    return reference.dropout_mask((N, C, 7, 7), [2, 3], ratio, seed, step).reshape(N, C)


def two_sided(count: int, trials: int, p: float) -> float:
    """Return the two-sided tail of a binomial count by the normal limit with continuity correction.

    With the trials used here (10^5 and more) the limit is off by less than a tenth of the tail at the bound of 1e-6.
    """
    distance = max(abs(count - trials * p) - 0.5, 0.0)
    return math.erfc(distance / math.sqrt(2 * trials * p * (1 - p)))


def p_values(draw: Draw, ratio: float) -> dict[str, float]:
    """Return the p-value of each claim for masks from ``draw(ratio, seed, step)``."""
    dropped = float(np.float32(ratio))
    both = dropped * dropped
    one = ~draw(ratio, 1, 0)
    joint = {
        "neighbouring channels": (one[:, :-1] & one[:, 1:]),
        "words of neighbouring blocks": (one[:, :-4] & one[:, 4:]),
        "neighbouring samples": (one[:-1] & one[1:]),
        "neighbouring steps": (one & ~draw(ratio, 1, 1)),
        "neighbouring seeds": (one & ~draw(ratio, 2, 0)),
        "seed and step exchanged": (~draw(ratio, 3, 2) & ~draw(ratio, 2, 3)),
        "far seeds": (one & ~draw(ratio, 1 + 2**32, 0)),
        "far steps": (one & ~draw(ratio, 1, 2**32)),
    }
    result = {"the ratio": two_sided(int(one.sum()), one.size, dropped)}
    result |= {name: two_sided(int(hits.sum()), hits.size, both) for name, hits in joint.items()}
    worst_channel = max(abs(int(count) - N * dropped) for count in one.sum(axis=0))
    # Chernoff's bound for the worst of C channels, by the union over both tails.
    spread = worst_channel**2 / (2 * N * dropped * (1 - dropped) + 2 * worst_channel / 3)
    result["the worst channel"] = min(1.0, 2 * C * math.exp(-spread))
    return result


@pytest.mark.parametrize("ratio", RATIOS)
def test_masks_pass(ratio: float) -> None:
    failed = {name: p for name, p in p_values(drawn, ratio).items() if p < 1e-4}
    assert not failed


FAULTS: dict[str, tuple[Draw, str]] = {
    "a ratio that is 1 % off": (lambda r, s, t: drawn(r * 1.01, s, t), "the ratio"),
    "a comparison of 8 bits": (
        lambda r, s, t: np.floor(np.random.default_rng([s, t]).random((N, C)) * 256) / 256 >= r,
        "the ratio",
    ),
    "a step that is ignored": (lambda r, s, _: drawn(r, s, 0), "neighbouring steps"),
    "steps of which the high half is ignored": (lambda r, s, t: drawn(r, s, t & 0xFFFFFFFF), "far steps"),
    "seeds of which the high half is ignored": (lambda r, s, t: drawn(r, s & 0xFFFFFFFF, t), "far seeds"),
    "seed plus step": (lambda r, s, t: drawn(r, s + t, 0), "seed and step exchanged"),
    "one draw for two channels": (
        lambda r, s, t: np.repeat(drawn(r, s, t)[:, ::2], 2, axis=1),
        "neighbouring channels",
    ),
    "one draw for two samples": (lambda r, s, t: np.repeat(drawn(r, s, t)[::2], 2, axis=0), "neighbouring samples"),
    "one mask for all samples": (lambda r, s, t: np.repeat(drawn(r, s, t)[:1], N, axis=0), "the worst channel"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_generators_fail(fault: str) -> None:
    """The power control: a test that nothing fails proves nothing."""
    draw, claim = FAULTS[fault]
    ratio = {"a comparison of 8 bits": 0.01, "a ratio that is 1 % off": 0.5}.get(fault, 0.1)
    assert p_values(draw, ratio)[claim] < 1e-6


def test_masks_of_different_nodes_of_one_model_are_independent_even_with_seeds_in_a_row() -> None:
    """65 nodes with seeds 0..64: all pairs of their masks agree as often as independent ones do."""
    masks = np.stack([reference.dropout_mask((4096,), [], 0.5, seed, 9) for seed in range(65)])
    agree = (masks[:, None] == masks[None]).sum(axis=2)[np.triu_indices(65, 1)]
    assert agree.max() < 2048 + 6 * 32
    assert agree.min() > 2048 - 6 * 32
