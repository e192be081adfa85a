"""Optimisers that users run on expanded models: the draw must neither freeze nor lose its sharing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from building import dropout_model
from expanding import assert_binomial, draw, ort_session

from onnx_spatialdrop.passes.expand import expand

pytestmark = pytest.mark.optimizers

OPTIMIZERS: dict[str, tuple[str, Callable[[Any, onnx.ModelProto], onnx.ModelProto]]] = {
    "onnxslim": ("onnxslim", lambda module, model: module.slim(model)),
    "onnxscript": ("onnxscript.optimizer", lambda module, model: module.optimize(model)),
    "onnxsim": ("onnxsim", lambda module, model: module.simplify(model)[0]),
}
# Those that hold. onnxslim deletes any Dropout and freezes RandomUniform; docs/forms.md says so.
HOLDING = [("onnxslim", "uniform", "N")] + [
    (optimizer, form, batch)
    for optimizer in ("onnxscript", "onnxsim")
    for form in ("uniform", "dropout", "philox", "philox-int32")
    for batch in ("N", 500)
]


@pytest.mark.filterwarnings("ignore")  # theirs, not ours
@pytest.mark.parametrize(("optimizer", "form", "batch"), HOLDING)
def test_a_fixed_training_graph_survives(optimizer: str, form: str, batch: str | int) -> None:
    name, optimize = OPTIMIZERS[optimizer]
    module = pytest.importorskip(name, reason=f"{optimizer} is not installed (pip install {optimizer})")
    model = dropout_model(shape=(batch, 4, "H", "W"), training_mode=True, step=[-1], wrap=True, mask=False)
    session = ort_session(optimize(module, expand(model, form=form)))
    maps = [draw(session, np.ones((500, 4, 2, 2), np.float32))[0].reshape(2000, 4) != 0 for _ in range(2)]
    for kept in maps:
        np.testing.assert_array_equal(kept.all(axis=1), kept.any(axis=1))
        assert_binomial(int(kept[:, 0].sum()), 2000, 0.7)
    assert_binomial(int((maps[0] == maps[1])[:, 0].sum()), 2000, 0.58)
