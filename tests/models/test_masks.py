"""The committed digits models in training mode: which maps they drop, and what Monte Carlo draws tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from zoo import RECORDED, attached, expose, feeds, record, session

from onnx_spatialdrop.operator import reference


def assert_within_an_ulp(found: npt.NDArray[np.float16], expected: npt.NDArray[np.float16]) -> None:
    """ONNX Runtime's CPU has no float16 Mul, computes in float32, and hands on X before its own rounding to float16."""
    difference = np.abs(found.astype(np.float32) - expected.astype(np.float32))
    assert (difference <= np.spacing(np.abs(expected)).astype(np.float32)).all()
    assert ((found == 0) == (expected == 0)).all()


@pytest.mark.parametrize("step", [[0], [2**40 + 3], range(24)], ids=["first", "beyond 2^40", "one a sample"])
@pytest.mark.parametrize("name", RECORDED)
def test_dropped_maps_are_the_references_bit_for_bit(name: str, step: Any) -> None:
    model = attached(name)
    exposed = expose(model)
    steps, images = np.array(step, np.int64), record(name).images[:24]
    wanted = [name for each in exposed for name in (each.x, each.y, each.mask)]
    values = dict(
        zip(wanted, session(model).run(wanted, feeds(name, images, training_mode=True, step=steps)), strict=True)
    )
    assert len(exposed) == (2 if name == "digits_keras_1d" else 3)
    for attributes, x, y, mask in exposed:
        expected, kept = reference.spatial_dropout(
            values[x], attributes.axes, attributes.ratio, attributes.seed, steps, scale=attributes.scale
        )
        assert values[mask].tobytes() == kept.tobytes()
        assert values[mask].shape == kept.shape
        assert not kept.all()
        assert values[y].dtype == values[x].dtype
        if name == "digits_float16":
            assert_within_an_ulp(values[y], expected)
        else:
            assert values[y].tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", RECORDED)
def test_the_mean_of_20_draws_is_as_accurate_and_its_entropy_tells_mistakes(name: str) -> None:
    known, run = record(name), session(attached(name))
    mean = np.zeros((len(known.labels), 10))
    for step in range(20):
        (logits,) = run.run(["logits"], feeds(name, known.images, training_mode=True, step=[step]))
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        mean += powers / powers.sum(1, keepdims=True) / 20
    entropy = -(mean * np.log(mean)).sum(1)
    right = mean.argmax(1) == known.labels
    assert right.mean() > 0.97
    assert entropy[~right].mean() > 2 * entropy[right].mean()
