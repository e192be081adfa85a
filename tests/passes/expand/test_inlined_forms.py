"""The forms philox and philox-int32 give the operator's own bits, in ONNX Runtime and in onnx's ReferenceEvaluator."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from building import assert_same_bits, dropout_model
from expanding import assert_binomial, draw, ort_session, with_float_ends
from onnx.reference import ReferenceEvaluator

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import int32
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.expand import expand

FORMS = ["philox", "philox-int32"]
ON, OFF = np.array(True), np.array(False)


def count(model: onnx.ModelProto) -> int:
    inner = [attribute.g for node in model.graph.node for attribute in node.attribute if attribute.HasField("g")]
    return len(model.graph.node) + sum(len(graph.node) for graph in inner)


def sample(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(spec.DTYPES[dtype])


def expected(x: np.ndarray, step: Any, axes: Any = (2, 3), ratio: float = 0.3, seed: int = 7) -> list[np.ndarray]:
    return list(spatial_dropout(x, axes, ratio, seed, step, scale=spec.explicit_scale(ratio, x.dtype)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opset", [18, 19, 21, 22, 24])
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("shape", [("N", 4, "H", "W"), (5, 4, 3, 2)])
def test_the_bits_in_onnxruntime(form: str, opset: int, level: str, shape: tuple[int | str, ...]) -> None:
    expanded = expand(dropout_model(opset=opset, shape=shape, wrap=True), form=form)
    onnx.checker.check_model(expanded, full_check=True)
    assert [entry.domain for entry in expanded.opset_import] == [""]
    assert not expanded.functions
    session, x = ort_session(expanded, level), sample((5, 4, 3, 2))
    for step in ([0], [2**31 - 1], [2**31], [2**32 + 5], [2**63 - 1], [5, 4, 3, 2, 1]):
        y, mask = draw(session, x, training_mode=ON, step=np.array(step))
        wanted = expected(np.abs(x), step)
        assert_same_bits(y, -wanted[0])
        np.testing.assert_array_equal(mask, wanted[1])
    y, mask = draw(session, x, training_mode=OFF, step=np.array([3]))
    assert_same_bits(y, -np.abs(x))
    assert mask.all()
    assert mask.shape == (5, 4, 1, 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, 4, 3, 2), (None, None, None, None)], ids=["known", "unknown"])
@pytest.mark.parametrize("strata", [3, 31, 127])
def test_balanced_bits(form: str, shape: tuple[int | None, ...], strata: int) -> None:
    """With all lengths of rows: a node whose sizes are unknown draws by itself."""
    x = sample((5, 4, 3, 2))
    for axes, ratio in [((2, 3), 0.3), ((1, 3), 1 / 3), ((0, 2), 0.9), ((), 0.0), ((), 1.0)]:
        expanded = expand(dropout_model(shape=shape, axes=axes, ratio=ratio, strata=strata), form=form)
        session = ort_session(expanded)
        for step in ([0], [2**31 - 1], [2**32 + 5], [2**63 - 1], [5, 2**40, 3, 2, 1])[: 4 if 0 in axes else 5]:
            y, mask = draw(session, x, training_mode=ON, step=np.array(step))
            scale = spec.explicit_scale(ratio, x.dtype)
            wanted = spatial_dropout(x, axes, ratio, 7, step, scale=scale, strata=strata)
            assert_same_bits(y, wanted[0])
            np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [[3], [2**40 + 1], [7, 2**33, 0, 1, 2**62]])
def test_the_bits_in_the_reference_evaluator(form: str, step: list[int]) -> None:
    x = sample((5, 4, 3, 2))
    evaluator = ReferenceEvaluator(expand(dropout_model(), form=form, target="reference"))
    y, mask = evaluator.run(None, {"x": x, "training_mode": ON, "step": np.array(step)})
    wanted = expected(x, step)
    assert_same_bits(y, wanted[0])
    np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", list(spec.DTYPES))
@pytest.mark.parametrize("scale", [None, 0.0, 3.1])
def test_types_and_scales(form: str, dtype: str, scale: float | None) -> None:
    expanded = expand(dropout_model(dtype=dtype, scale=scale), form=form)
    onnx.checker.check_model(expanded, full_check=True)
    x = sample((6, 4, 3, 2), dtype)
    x[0, 0, 0, 0], x[0, 1, 0, 0], x[0, 2, 0, 0] = np.inf, np.nan, -0.0
    steps = np.array([9])
    if dtype == "bfloat16":
        y = draw(ort_session(with_float_ends(expanded)), x.astype(np.float32), training_mode=ON, step=steps)[0]
        y = y.astype(x.dtype)
    else:
        y = draw(ort_session(expanded), x, training_mode=ON, step=steps)[0]
    given = spec.explicit_scale(0.3, x.dtype) if scale is None else scale
    assert_same_bits(y, spatial_dropout(x, (2, 3), 0.3, 7, 9, scale=given)[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((13,), ()),
        ((13,), (0,)),
        ((6, 7), (-1,)),
        ((5, 3, 6), (1,)),
        ((5, 3, 6), (0, 2)),
        ((2, 3, 4, 5), ()),
        ((3, 4, 5, 2, 2), (-4, -2, -1)),
        ((0, 3, 2), (2,)),
        ((3, 4, 0), (2,)),
        ((3, 0, 4), (2,)),
    ],
)
def test_ranks_axes_and_empty_tensors(form: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    model = dropout_model(shape=[f"d{i}" for i in range(len(shape))], axes=axes, ratio=0.5)
    x = sample(shape)
    y, mask = draw(ort_session(expand(model, form=form)), x, training_mode=ON, step=np.array([4]))
    wanted = expected(x, [4], axes, 0.5)
    assert_same_bits(y, wanted[0])
    np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("form", FORMS)
def test_ratios_and_seeds(form: str) -> None:
    x = sample((7, 4, 1, 1))
    seeds = [0, 1, -1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1, 0x8000000080000000, -12345678901234567]
    for ratio, seed in itertools.chain(
        zip(itertools.repeat(0.5), seeds), itertools.product([0, 1, 1e-8, 0.1, 0.999], [7])
    ):
        session = ort_session(expand(dropout_model(ratio=ratio, seed=seed), form=form), "ORT_DISABLE_ALL")
        y, mask = draw(session, x, training_mode=ON, step=np.array([1]))
        wanted = expected(x, [1], (2, 3), ratio, seed)
        assert_same_bits(y, wanted[0])
        np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [None, [-1]])
@pytest.mark.parametrize("opset", [18, 22])
def test_a_negative_step_is_a_fresh_draw(form: str, step: list[int] | None, opset: int) -> None:
    model = dropout_model(step=step, wrap=True, ratio=0.5, opset=opset, training_mode=True)
    session, x = ort_session(expand(model, form=form)), sample((100, 4, 2, 2))
    masks = [draw(session, x)[1] for _ in range(12)]
    assert len({mask.tobytes() for mask in masks}) == 12
    assert_binomial(sum(int(mask.sum()) for mask in masks), 12 * 400, 0.5)


def test_openvinos_nonce_is_a_fresh_draw_too() -> None:
    expanded = expand(dropout_model(ratio=0.5), target="openvino")
    session, x = ort_session(expanded), sample((100, 4, 2, 2))
    feeds = {"training_mode": ON, "step": np.array([-1])}
    masks = [draw(session, x, **feeds)[1] for _ in range(12)]
    assert len({mask.tobytes() for mask in masks}) == 12
    y = draw(session, x, training_mode=ON, step=np.array([6]))[0]
    assert_same_bits(y, expected(x, [6], (2, 3), 0.5)[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [[1, 2], [1, -2, 3, 4, 5], []])
def test_a_step_that_the_definition_refuses_stops_the_run(form: str, step: list[int]) -> None:
    session = ort_session(expand(dropout_model(), form=form))
    with pytest.raises(Exception, match="(masks|y)/philox"):
        draw(session, sample((5, 4, 2, 2)), training_mode=ON, step=np.array(step, np.int64))


@pytest.mark.parametrize("form", FORMS)
def test_constants_are_folded(form: str) -> None:
    switchable = expand(dropout_model(), form=form)
    fixed = expand(dropout_model(training_mode=True, step=[5]), form=form)
    assert [value.name for value in fixed.graph.input] == ["x"]
    assert count(fixed) < count(switchable)
    assert not {"Dropout", "If"} & {node.op_type for node in fixed.graph.node}
    x = sample((5, 4, 3, 2))
    assert_same_bits(draw(ort_session(fixed), x)[0], expected(x, [5])[0])
    # The key schedule is arithmetic on the seed, which is an attribute.
    assert "key" not in " ".join(name for node in switchable.graph.node for name in node.input)


def test_the_int32_form_computes_words_in_int32() -> None:
    expanded = expand(dropout_model(), form="philox-int32", target="openvino")
    inferred = onnx.shape_inference.infer_shapes(expanded, data_prop=True)
    wide = {onnx.TensorProto.UINT64, onnx.TensorProto.UINT32, onnx.TensorProto.DOUBLE}
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert not wide & set(types.values())
    words = [kind for name, kind in types.items() if name.split("/")[-1].split("_")[0] in ("s", "c", "p00", "mixed")]
    assert set(words) == {onnx.TensorProto.INT32}
    assert len(words) > 40


def test_the_int32_body_needs_bitwise_operators() -> None:
    with pytest.raises(FormError) as error:
        int32.functions(17)
    assert str(error.value) == "the model imports opset 17; the int32 body needs 18 or newer"
