"""Expanded models in tract: the uniform form, drawn by tract's generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from building import dropout_model
from expanding import assert_binomial

from onnx_spatialdrop.passes.expand import expand

tract = pytest.importorskip("tract", reason="tract is not installed (pip install tract)")
pytestmark = pytest.mark.tract


@pytest.mark.parametrize("shape", [("N", 4, "H", "W"), (500, 4, 2, 2)])
@pytest.mark.parametrize("opset", [13, 18, 22])
@pytest.mark.parametrize("training_mode", [None, True])
def test_a_state_draws_afresh(
    tmp_path: Path, shape: tuple[int | str, ...], opset: int, training_mode: bool | None
) -> None:
    file = tmp_path / "model.onnx"
    model = dropout_model(shape=shape, opset=opset, training_mode=training_mode, wrap=True, mask=False)
    onnx.save(expand(model, target="tract"), file)
    runnable, x = tract.onnx().load(file).into_model().into_runnable(), np.ones((500, 4, 2, 2), np.float32)
    switch = [] if training_mode else [np.array(True)]
    state = runnable.spawn_state()
    maps = [state.run([x, *switch])[0].to_numpy().reshape(2000, 4) != 0 for _ in range(2)]
    for kept in maps:
        np.testing.assert_array_equal(kept.all(axis=1), kept.any(axis=1))
        assert_binomial(int(kept[:, 0].sum()), 2000, 0.7)
    assert_binomial(int((maps[0] == maps[1])[:, 0].sum()), 2000, 0.58)
    if switch:
        np.testing.assert_array_equal(state.run([x, np.array(False)])[0].to_numpy(), -x)
    # Every new state starts from the seed again: keep one state for fresh draws.
    np.testing.assert_array_equal(runnable.run([x, *switch])[0].to_numpy(), runnable.run([x, *switch])[0].to_numpy())
