"""The function body draws the reference's bits, in ONNX Runtime and in onnx's ReferenceEvaluator."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import assert_same_bits, dropout_ir, dropout_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnx_spatialdrop import FormError, attach, reference
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body, int32

#: Opsets that this ONNX Runtime knows; 23 and 24 came with 1.24 and need not be known before.
NEW = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24)
OPSETS = [18, 19, 20, 21, 22, *([23, 24] if NEW else [])]


def quiet() -> onnxruntime.SessionOptions:
    """Return options under which refused runs don't print."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def run(model: onnx.ModelProto, x: np.ndarray, step: list[int], training_mode: bool = True) -> list[np.ndarray]:
    """Run a model with its switches in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "training_mode": np.array(training_mode), "step": np.array(step, np.int64)})


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    """A node, an input and a step, over the operator's whole range."""
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    signed = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    per_sample = 0 not in axes and draw(st.booleans())
    any_step = st.integers(0, 2**63 - 1) | st.integers(0, 5) | st.integers(2**32 - 2, 2**32 + 2)
    return {
        "shape": shape,
        "axes": signed,
        "dtype": draw(st.sampled_from(["float16", "float32", "float64"])),
        "ratio": draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)),
        "seed": draw(st.integers(-(2**63), 2**64 - 1)),
        "strata": draw(st.sampled_from([1, 1, 3, 31, 127])),
        "step": draw(
            st.lists(any_step, min_size=shape[0], max_size=shape[0])
            if per_sample
            else st.lists(any_step, min_size=1, max_size=1)
        ),
        "training_mode": draw(st.sampled_from([True, True, True, False])),
        "draw": draw(st.integers(0, 2**32)),
    }


def values(shape: list[int], dtype: str, draw: int) -> np.ndarray:
    """Return normal values with a few special ones among them."""
    generator = np.random.default_rng(draw)
    x = np.asarray(generator.normal(size=shape)).astype(spec.DTYPES[dtype])
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 6e-8]).astype(x.dtype)
    chosen = generator.random(x.shape) < 0.2
    x[chosen] = generator.choice(special, int(chosen.sum()))
    return x


def check(case: dict, run_body) -> None:
    x = values(case["shape"], case["dtype"], case["draw"])
    scale = spec.explicit_scale(case["ratio"], x.dtype)
    expected = reference.spatial_dropout(
        x,
        case["axes"],
        case["ratio"],
        case["seed"],
        case["step"],
        case["training_mode"],
        scale,
        strata=case["strata"],
    )
    node = {key: case[key] for key in ("dtype", "axes", "ratio", "seed", "strata")}
    model = attach(dropout_model(shape=[None] * x.ndim, scale=scale, **node))
    y, mask = run_body(model, x, case["step"], case["training_mode"])
    assert_same_bits(y, expected[0])
    np.testing.assert_array_equal(mask, expected[1])


@settings(max_examples=150, deadline=None)
@given(cases())
def test_onnxruntime_runs_the_body_to_the_bit(case: dict) -> None:
    check(case, run)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_reference_evaluator_runs_the_body_to_the_bit(case: dict) -> None:
    def evaluate(model: onnx.ModelProto, x: np.ndarray, step: list[int], training_mode: bool) -> list[np.ndarray]:
        feeds = {"x": x, "training_mode": np.array(training_mode), "step": np.array(step, np.int64)}
        with np.errstate(all="ignore"):
            return ReferenceEvaluator(model).run(None, feeds)

    check(case, evaluate)


@pytest.mark.parametrize("strata", [1, 31])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_every_opset_and_optimisation_level(opset: int, level: str, strata: int) -> None:
    model = attach(dropout_model(opset=opset, wrap=True, strata=strata))
    options = quiet()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).random((3, 4, 5, 5), np.float32)
    y, mask = session.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([3, 1, 2])})
    scale = spec.explicit_scale(0.3)
    expected = reference.spatial_dropout(x, [2, 3], 0.3, 7, [3, 1, 2], scale=scale, strata=strata)
    assert_same_bits(y, -expected[0])
    np.testing.assert_array_equal(mask, expected[1])


def test_bfloat16_computes_in_float_and_rounds_once() -> None:
    """ONNX Runtime has no bfloat16 Mul or Where; Casts at both ends let NumPy's float32 in and out."""
    model = dropout_ir(dtype="bfloat16", shape=("N", 6), axes=(), mask=False)
    graph = model.graph
    x, y = graph.inputs[0], graph.outputs[0]
    x.type = ir.TensorType(ir.DataType.FLOAT)
    narrow = ir.node("Cast", [x], {"to": ir.DataType.BFLOAT16})
    narrow.outputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
    wide = ir.node("Cast", [y], {"to": ir.DataType.FLOAT})
    graph[0].replace_input_with(0, narrow.outputs[0])
    graph.insert_before(graph[0], narrow)
    graph.append(wide)
    wide.outputs[0].name, wide.outputs[0].type, wide.outputs[0].shape = "z", x.type, y.shape
    graph.outputs[0] = wide.outputs[0]
    sample = np.random.default_rng(0).normal(size=(50, 6)).astype(spec.DTYPES["bfloat16"])
    (got,) = run(attach(ir.to_proto(model)), sample.astype(np.float32), [4])
    expected, _ = reference.spatial_dropout(sample, [], 0.3, 7, 4, scale=spec.explicit_scale(0.3, sample.dtype))
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_a_negative_step_draws_afresh_every_run_and_is_not_deleted() -> None:
    model = attach(dropout_model(shape=("N", 64), axes=(), ratio=0.5, wrap=True))
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((4, 64), np.float32), "training_mode": np.array(True)}
    masks = [session.run(["mask"], feeds)[0] for _ in range(50)]  # step defaults to -1
    assert len({mask.tobytes() for mask in masks}) == 50
    kept = sum(int(mask.sum()) for mask in masks)
    assert abs(kept - 50 * 128) < 6 * np.sqrt(50 * 256 / 4)


@pytest.mark.parametrize(
    ("axes", "step", "node"),
    [
        ((2, 3), [1, 2], "step_must_have_1_or_N_elements"),
        ((2, 3), [1, 2, 3, 4], "step_must_have_1_or_N_elements"),
        ((2, 3), [], "step_must_have_1_or_N_elements"),
        ((0, 3), [1, 2, 3], "step_must_have_1_or_N_elements"),
        ((2, 3), [1, -2, 3], "step_has_a_negative_element"),
    ],
)
def test_a_refused_step_stops_the_run_and_says_why(axes: tuple[int, ...], step: list[int], node: str) -> None:
    model = attach(dropout_model(axes=axes))
    for training_mode in (True, False):
        with pytest.raises(Exception, match=node):
            run(model, np.ones((3, 4, 2, 2), np.float32), step, training_mode)


@pytest.mark.parametrize("strata", [3, 5, 31, 127])
def test_strata_that_a_body_was_not_made_for_stop_the_run_and_say_why(strata: int) -> None:
    model = attach(dropout_model())
    next(attribute for attribute in model.graph.node[0].attribute if attribute.name == "strata").i = strata
    with pytest.raises(Exception, match="strata_are_unknown_to_the_function_attach_again"):
        run(model, np.ones((3, 4, 2, 2), np.float32), [1])


def test_nodes_with_and_without_strata_share_a_body() -> None:
    model = dropout_ir(shape=("N", 40), axes=(), mask=False)
    graph, (x, training_mode, step) = model.graph, model.graph[0].inputs
    second = op.spatial_dropout(x, 0.3, training_mode=training_mode, step=step, seed=7, axes=[], strata=31, name="b")
    graph.append(second)
    second.outputs[0].name = "b"
    graph.outputs.append(second.outputs[0])
    sample = np.ones((31, 40), np.float32)
    for got, strata in zip(run(attach(ir.to_proto(model)), sample, list(range(31))), (1, 31), strict=True):
        mask = reference.dropout_mask(sample.shape, [], 0.3, 7, range(31), strata=strata)
        np.testing.assert_array_equal(got != 0, mask)


def test_a_body_needs_no_branch_and_no_random_op_without_a_kernel() -> None:
    """If bodies share draws, trainers abort on If, Bernoulli is inverted, RandomUniform lost its kernel at opset 22."""
    for opset in (15, *OPSETS):
        used = {node.op_type for function in body.functions(opset) for node in function.all_nodes()}
        assert not used & {"If", "Loop", "Bernoulli", "RandomUniform", "RandomUniformLike", "RandomNormal"}


@pytest.mark.parametrize("opset", [15, 16, 17])
def test_below_opset_18_a_body_drops_maps_from_the_runtimes_own_numbers(opset: int) -> None:
    model = attach(dropout_model(opset=opset, wrap=True, shape=("N", 8, "H"), axes=(2,)))
    x = np.ones((500, 8, 3), np.float32)
    y, mask = run(model, x, [-1])
    assert abs(int(mask.sum()) - 4000 * 0.7) < 6 * np.sqrt(4000 * 0.21)
    np.testing.assert_array_equal(y, np.where(mask, -np.float32(1 / 0.7), -0.0) * np.ones_like(x))
    y, mask = run(model, x, [-1], training_mode=False)
    np.testing.assert_array_equal(y, -x)
    assert mask.all()


@pytest.mark.parametrize("opset", [17, 18])
def test_every_entry_of_a_small_mask_is_drawn_at_the_ratio(opset: int) -> None:
    """ONNX Runtime's unseeded Dropout gives its first entry the same outcome in every run."""
    model = attach(dropout_model(opset=opset, shape=("N", 3), axes=(), ratio=0.5))
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((1, 3), np.float32), "training_mode": np.array(True), "step": np.array([-1])}
    kept = sum(session.run(["mask"], feeds)[0].astype(int) for _ in range(600))
    assert (np.abs(kept - 300) < 6 * np.sqrt(150)).all()


@pytest.mark.parametrize(("ratio", "kept"), [(1.0, 0), (0.0, 4000)])
def test_below_opset_18_the_extreme_ratios_work_too(ratio: float, kept: int) -> None:
    """ONNX Runtime's Dropout refuses a ratio of 1."""
    model = attach(dropout_model(opset=17, shape=("N", 8), axes=(), ratio=ratio))
    y, mask = run(model, np.ones((500, 8), np.float32), [-1])
    assert int(mask.sum()) == kept
    assert int((y == 1).sum()) == kept


def test_opset_14_is_refused_with_the_way_out() -> None:
    with pytest.raises(FormError, match="imports opset 14, and a function body needs 15 or newer; convert the model's"):
        attach(dropout_model(opset=14))


@pytest.mark.parametrize("rng", spec.RNGS)
def test_every_choice_of_the_int32_body_is_a_function_that_can_be_read(rng: str) -> None:
    """Parts of the body are put together as they are needed; no two of them may give one name to two values."""
    choices = itertools.product(("dropout", "uniform"), (None, "float", "double"), (False, True), (False, True))
    for nonce, dtype, single, balanced in choices:
        made = int32.functions(20, rng, nonce=nonce, dtype=dtype, single=single, balanced=balanced)
        assert made[-1].name == spec.OP_TYPE
