"""Random models against the reference: a few hundred always, ten thousand in the slow suite."""

import math

import numpy as np
import pytest
from native_models import assert_right, drop_node, make_model, make_session, numbers, run

from onnx_spatialdrop.operator import dialects


def check_random_model(seed: int) -> None:
    """Make, run and check the model that belongs to ``seed``."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 17)) if seed % 5 == 0 else int(rng.integers(1, 6))
    room, shape = int(rng.choice([200, 5000, 60000])), []
    for _ in range(rank):
        limit = room if rng.random() < 0.2 else min(room, 9)
        shape.append(0 if rng.random() < 0.01 else int(rng.integers(1, limit + 1)))
        room //= max(shape[-1], 1)
    shape = [int(dim) for dim in rng.permutation(shape)]
    axes = [int(a) - (rank if rng.random() < 0.5 else 0) for a in rng.permutation(rank)[: rng.integers(0, rank + 1)]]
    dtype = str(rng.choice(["float16", "bfloat16", "float32", "float64"]))
    rngs = [name for name, dialect in dialects.DIALECTS.items() if dtype in dialect.tests]
    attributes = {
        "axes": axes,
        "ratio": float(rng.choice([0.0, 1.0, 2e-7, 0.1, 0.2, 0.5, 0.9, float(rng.random())])),
        "seed": int(rng.integers(-(2**63), 2**63)),
        "scale": float(rng.choice([0.0, 0.0, 1.0, float(rng.normal())])),
        "rng": str(rng.choice(["philox", *rngs])),
    }
    if attributes["rng"] == "philox":
        attributes["strata"] = int(rng.choice([1, 3, 31, 127]))
    per_sample = not any(a % rank == 0 for a in axes) and rng.random() < 0.5
    step = rng.integers(0, 2**63, shape[0] if per_sample else 1) >> rng.integers(0, 63)
    training = bool(rng.random() < 0.9)
    wants = bool(rng.random() < 0.5)
    node = drop_node("x", "y", "mask" if wants else "", **attributes)
    model = make_model([node], dtype, shape if rng.random() < 0.5 else None, ("y", "mask") if wants else ("y",))
    x = numbers(shape, dtype, seed)
    results = run(make_session(model, int(rng.integers(1, 3))), x, training, step)
    case = {**attributes, "step": step, "training_mode": training}
    assert math.prod(shape) == x.size
    assert_right(x, results[0], results[1] if wants else None, **case)


@pytest.mark.parametrize("path", ["portable", "avx2", "avx512"])
def test_random_models(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_CPU", path)
    for seed in range(120):
        check_random_model(seed)


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(10))
def test_ten_thousand_random_models(thousand: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_CPU", ["avx512", "avx2", "portable"][thousand % 3])
    for seed in range(1000 * thousand, 1000 * thousand + 1000):
        check_random_model(seed)
