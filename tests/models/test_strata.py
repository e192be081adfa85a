"""What balancing is for: on trained networks, the mean of one cycle of draws is closer to the mean of very many."""

import numpy as np
import pytest
from zoo import feeds, path, record

import onnx_spatialdrop as sd

STRATA, IMAGES, REPEATS, TRUTH = 31, 20, 30, 20


def means(name: str, strata: int, cycles: range) -> np.ndarray:
    """Return the mean probabilities over each cycle of 31 steps, shape (cycles, images, classes)."""
    session = sd.session(sd.stratify(path(name), strata=strata))
    images = np.repeat(record(name).images[:IMAGES], STRATA, axis=0)
    found = []
    for cycle in cycles:
        steps = np.tile(np.arange(STRATA * cycle, STRATA * (cycle + 1)), IMAGES)
        (logits,) = session.run(None, feeds(name, images, training_mode=True, step=steps))
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        found.append(shares.reshape(IMAGES, STRATA, -1).mean(axis=1))
    return np.stack(found)


@pytest.mark.parametrize("name", ["digits_torch", "digits_keras", "digits_keras_1d"])
def test_the_mean_of_a_cycle_has_less_error_and_no_bias(name: str) -> None:
    truth = means(name, STRATA, range(1000, 1000 + 2 * TRUTH)).mean(axis=0)
    independent, balanced = (means(name, strata, range(REPEATS)) for strata in (1, STRATA))
    errors = [((each - truth) ** 2).mean() for each in (independent, balanced)]
    assert errors[0] / errors[1] > 1.4
    # Means of independent and of balanced draws part by what their own spreads explain, all probabilities together.
    apart = ((independent.mean(axis=0) - balanced.mean(axis=0)) ** 2).sum()
    explained = sum(each.var(axis=0, ddof=1).sum() / REPEATS for each in (independent, balanced))
    assert apart < 2 * explained
