"""Expanded models in tract: the operator's own bits from int32 alone, and the uniform form, drawn by tract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import assert_same_bits, dropout_model
from expanding import assert_binomial

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.check import check
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
    onnx.save(expand(model, form="uniform", target="tract"), file)
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


def runnable(model: onnx.ModelProto, file: Path) -> Any:
    onnx.save(model, file)
    return tract.onnx().load(file).into_model().into_runnable()


@pytest.mark.parametrize("opset", [18, 21, 23])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        (("N", 4, "H", "W"), (2, 3)),
        (("N", 3, 5, 2), (2, 3)),
        (("N", "T", 5), (1,)),
        ((5, 4, 3, 2), (2, 3)),
        ((7, 9), ()),
        ((6, 5, 4), (0, 2)),
        ((13,), ()),
    ],
)
def test_the_operators_own_bits(
    tmp_path: Path, opset: int, shape: tuple[int | str, ...], axes: tuple[int, ...]
) -> None:
    sizes = [7 if isinstance(dim, str) else dim for dim in shape]
    x = np.random.default_rng(1).normal(size=sizes).astype(np.float32)
    model = runnable(expand(dropout_model(shape=shape, axes=axes, opset=opset), target="tract"), tmp_path / "m.onnx")
    for step in (0, 3, 2**31, 2**40 + 3):
        y, mask = (value.to_numpy() for value in model.run([x, np.array(True), np.array([step])]))
        wanted = spatial_dropout(x, axes, 0.3, 7, step, scale=spec.explicit_scale(0.3))
        assert_same_bits(y, wanted[0])
        np.testing.assert_array_equal(mask.astype(bool), wanted[1])
    y, mask = (value.to_numpy() for value in model.run([x, np.array(False), np.array([3])]))
    np.testing.assert_array_equal(y, x)
    assert mask.all()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types(tmp_path: Path, dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=(5, 4, 3, 2)).astype(dtype)
    model = runnable(expand(dropout_model(dtype=dtype), target="tract"), tmp_path / "m.onnx")
    y, mask = (value.to_numpy() for value in model.run([x, np.array(True), np.array([3])]))
    wanted = spatial_dropout(x, (2, 3), 0.3, 7, 3, scale=spec.explicit_scale(0.3, x.dtype))
    assert_same_bits(y, wanted[0])
    np.testing.assert_array_equal(mask.astype(bool), wanted[1])


def test_a_negative_step_is_a_fresh_draw_every_run(tmp_path: Path) -> None:
    x = np.ones((100, 4, 2, 2), np.float32)
    state = runnable(expand(dropout_model(ratio=0.5), target="tract"), tmp_path / "m.onnx").spawn_state()
    masks = [state.run([x, np.array(True), np.array([-1])])[1].to_numpy().astype(bool) for _ in range(12)]
    assert len({mask.tobytes() for mask in masks}) == 12
    assert_binomial(sum(int(mask.sum()) for mask in masks), 12 * 400, 0.5)


def test_one_step_a_run(tmp_path: Path) -> None:
    expanded = expand(dropout_model(), target="tract")
    (step,) = [value for value in expanded.graph.input if value.name == "step"]
    assert [dim.dim_value for dim in step.type.tensor_type.shape.dim] == [1]
    with pytest.raises(Exception, match="1 != 2"):
        runnable(expanded, tmp_path / "m.onnx").run([np.ones((2, 4, 2, 2), np.float32), np.array(True), np.arange(2)])
    several = dropout_model(shape=(2, 4, 2, 2), step=[1, 2])
    with pytest.raises(FormError, match=r"takes one step a run in tract, and this node's step has the shape \[2\]"):
        expand(several, target="tract")


@pytest.mark.parametrize("rng", spec.RNGS[1:])
def test_the_frameworks_dialects_are_refused_or_drawn_by_tract(rng: str) -> None:
    """Loading their int32 bodies does not end in tract: refused, and uniform is what it gets by default."""
    with pytest.raises(
        FormError, match=f"tract does not come back from loading the form 'philox-int32' of rng '{rng}'"
    ):
        expand(dropout_model(rng=rng), form="philox-int32", target="tract")
    assert any(
        node.op_type == "RandomUniformLike" for node in expand(dropout_model(rng=rng), target="tract").graph.node
    )


def test_the_form_as_others_have_it_is_found(tmp_path: Path) -> None:
    """The trap that check(target="tract") finds: shapes that depend on what is fed."""
    model = expand(dropout_model(), form="philox-int32", defaults=False)
    with pytest.raises(Exception, match="shape input is variable|volume mismatch"):
        runnable(model, tmp_path / "m.onnx")
    assert "computed-shape" in [finding.rule for finding in check(model, target="tract")]
    assert check(expand(dropout_model(), target="tract"), target="tract") == []
