"""Expanded models in OpenVINO's CPU plugin: the operator's own bits from int32 alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from building import assert_same_bits, dropout_model
from expanding import assert_binomial

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.check import check
from onnx_spatialdrop.passes.expand import expand

openvino = pytest.importorskip("openvino", reason="openvino is not installed (pip install openvino)")
pytestmark = pytest.mark.openvino

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def compiled(**arguments: Any) -> Any:
    core = openvino.Core()
    form = arguments.pop("form", None)
    model = expand(dropout_model(**arguments), target="openvino", form=form)
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", EXACT)


def run(model: Any, x: np.ndarray, step: list[int], training_mode: bool = True) -> list[np.ndarray]:
    feeds = {"x": x, "training_mode": np.array(training_mode), "step": np.array(step)}
    if x.dtype == spec.DTYPES["bfloat16"]:
        feeds["x"] = openvino.Tensor(x.view(np.uint16).copy(), x.shape, openvino.Type.bf16)
    names = {name for port in model.inputs for name in port.names}
    y, mask = (value.copy() for value in model({k: v for k, v in feeds.items() if k in names}).values())
    return [y.view(x.dtype), mask.astype(bool)]


def sample(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(spec.DTYPES[dtype])


@pytest.mark.parametrize("opset", [18, 21, 22, 23])
@pytest.mark.parametrize("shape", [("N", 4, "H", "W"), (5, 4, 3, 2)])
def test_steps(opset: int, shape: tuple[int | str, ...]) -> None:
    model, x = compiled(opset=opset, shape=shape, wrap=True), sample((5, 4, 3, 2))
    for step in ([0], [5], [2**24 + 1], [2**31 - 2], [2**31 - 1], [5, 4, 3, 2**30 + 7, 1]):
        y, mask = run(model, x, step)
        wanted = spatial_dropout(np.abs(x), (2, 3), 0.3, 7, step, scale=spec.explicit_scale(0.3))
        assert_same_bits(y + np.float32(0), -wanted[0] + np.float32(0))  # OpenVINO's Neg of 0 is 0, not -0
        np.testing.assert_array_equal(mask, wanted[1])
    y, mask = run(model, x, [5], training_mode=False)
    np.testing.assert_array_equal(y, -np.abs(x))
    assert mask.all()


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 0x8000000080000000, -12345678901234567])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.999, 1.0])
def test_seeds_and_ratios(seed: int, ratio: float) -> None:
    x = sample((9, 4, 2, 1))
    y, mask = run(compiled(seed=seed, ratio=ratio), x, [3])
    wanted = spatial_dropout(x, (2, 3), ratio, seed, 3, scale=spec.explicit_scale(ratio))
    assert_same_bits(y, wanted[0])
    np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((13,), ()),
        ((300, 70), ()),
        ((6, 7), (-1,)),
        ((5, 3, 6), (0, 2)),
        ((3, 4, 5, 2, 2), (2, 3, 4)),
        ((0, 3, 2), (2,)),
    ],
)
def test_ranks_and_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = sample(shape)
    y, mask = run(compiled(shape=[f"d{i}" for i in range(len(shape))], axes=axes), x, [4])
    wanted = spatial_dropout(x, axes, 0.3, 7, 4, scale=spec.explicit_scale(0.3))
    assert_same_bits(y, wanted[0])
    np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.0), ("bfloat16", 2**-7), ("float64", 3e-7)])
def test_other_types(dtype: str, tolerance: float) -> None:
    """OpenVINO's CPU computes doubles in float and rounds to bfloat16 in its own way; masks are right all the same."""
    x = sample((5, 4, 3, 2), dtype)
    y, mask = run(compiled(dtype=dtype), x, [4])
    wanted = spatial_dropout(x, (2, 3), 0.3, 7, 4, scale=spec.explicit_scale(0.3, x.dtype))
    np.testing.assert_allclose(y.astype(np.float64), wanted[0].astype(np.float64), rtol=tolerance)
    np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("strata", [3, 31, 127])
def test_balanced_bits(strata: int) -> None:
    model, x = compiled(shape=["d0", "d1", "d2", "d3"], strata=strata), sample((5, 4, 3, 2))
    for step in ([0], [2**31 - 1], [2**30 + 12345], [7, 2**31 - 2, 31, 30, 2**24 + 1]):
        y, mask = run(model, x, step)
        wanted = spatial_dropout(x, (2, 3), 0.3, 7, step, scale=spec.explicit_scale(0.3), strata=strata)
        assert_same_bits(y, wanted[0])
        np.testing.assert_array_equal(mask, wanted[1])


def test_only_the_low_word_of_a_step_arrives() -> None:
    """The limit that docs/forms.md states: steps are int32 here, so 2**33 + 5 draws what 5 draws."""
    model, x = compiled(), sample((50, 4, 1, 1))
    np.testing.assert_array_equal(run(model, x, [2**33 + 5])[1], run(model, x, [5])[1])


def test_a_negative_step_is_a_fresh_draw_every_run() -> None:
    model, x = compiled(ratio=0.5), sample((100, 4, 2, 2))
    masks = [run(model, x, [-1])[1] for _ in range(12)]
    assert len({mask.tobytes() for mask in masks}) == 12
    assert_binomial(sum(int(mask.sum()) for mask in masks), 12 * 400, 0.5)


def test_a_step_of_the_wrong_length_stops_the_run() -> None:
    with pytest.raises(RuntimeError, match="philox-int32"):
        run(compiled(), sample((5, 4, 2, 2)), [1, 2])


@pytest.mark.parametrize("shape", [("N", 4, "H", "W"), (500, 4, 2, 2)])
@pytest.mark.parametrize("opset", [13, 22])
def test_the_uniform_form_draws_from_openvinos_generator(shape: tuple[int | str, ...], opset: int) -> None:
    model, x = compiled(form="uniform", opset=opset, shape=shape), np.ones((500, 4, 2, 2), np.float32)
    masks = [run(model, x, [])[1] for _ in range(2)]
    for mask in masks:
        assert mask.shape == (500, 4, 1, 1)
        assert_binomial(int(mask.sum()), 2000, 0.7)
    assert_binomial(int((masks[0] == masks[1]).sum()), 2000, 0.58)
    assert run(model, x, [], training_mode=False)[1].all()


def test_the_form_of_64_bits_runs_with_wrong_masks_where_its_step_is_constant() -> None:
    """The trap that check(target="openvino") finds: with a Dropout for fresh draws OpenVINO would refuse the file."""
    fixed = dropout_model(shape=(50, 4, 1, 1), training_mode=True, step=[3])
    x = np.ones((50, 4, 1, 1), np.float32)
    wanted = spatial_dropout(x, (2, 3), 0.3, 7, 3)[1]
    core = openvino.Core()
    for form, right in (("philox", False), ("philox-int32", True)):
        model = expand(fixed, form=form)  # for ONNX Runtime
        assert ("wide-integers" in [finding.rule for finding in check(model, target="openvino")]) != right
        run = core.compile_model(core.read_model(model.SerializeToString()), "CPU", EXACT)
        _, mask = run({"x": x}).values()
        assert np.array_equal(mask, wanted) == right
