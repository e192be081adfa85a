"""The forms "philox" and "philox-int32" write out the bits of every dialect, and fuse gives the nodes back."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import assert_same_bits, dropout_ir, dropout_model
from expanding import assert_binomial, draw, ort_session, with_float_ends
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop import SpecError, expand
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.expand import FORMS
from onnx_spatialdrop.passes.fuse.policy import run as fuse

BITS = ["philox", "philox-int32"]
FRAMEWORKS = spec.RNGS[1:]
PAIRS = [(rng, name) for rng in FRAMEWORKS for name in dialects.DIALECTS[rng].tests]
ON = np.array(True)
STEPS = ([3], [2**31 - 3], [2**31 - 2], [2**31 + 1], [2**63 - 1], [5, 2**33, 0, 1, 2**62])


def sample(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(spec.DTYPES[dtype])


@pytest.mark.parametrize("form", BITS)
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_every_dialect_and_type(form: str, rng: str, dtype: str) -> None:
    expanded = expand(dropout_model(dtype=dtype, rng=rng, seed=-12345678901234567, ratio=0.1), form=form)
    onnx.checker.check_model(expanded, full_check=True)
    assert not expanded.functions
    assert "TfIdfVectorizer" not in {node.op_type for node in expanded.graph.node}  # nobody has to ask for the dialect
    x = sample((5, 4, 3, 2), dtype)
    evaluator = ReferenceEvaluator(expanded)
    session = ort_session(with_float_ends(expanded) if dtype == "bfloat16" else expanded)
    for step in STEPS:
        wanted = spatial_dropout(
            x, (2, 3), 0.1, -12345678901234567, step, scale=spec.explicit_scale(0.1, x.dtype), rng=rng
        )
        given = x.astype(np.float32) if dtype == "bfloat16" else x
        y, mask = draw(session, given, training_mode=ON, step=np.array(step))
        assert_same_bits(y.astype(x.dtype), wanted[0])
        np.testing.assert_array_equal(mask, wanted[1])
        y, mask = evaluator.run(None, {"x": x, "training_mode": ON, "step": np.array(step)})
        assert_same_bits(y, wanted[0])
        np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("form", BITS)
@pytest.mark.parametrize("rng", FRAMEWORKS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((13,), ()),
        ((6, 7), (-1,)),
        ((5, 3, 6), (0, 2)),
        ((3, 4, 5, 2, 2), (-4, -2, -1)),
        ((0, 3, 2), (2,)),
        ((3, 0), ()),
    ],
)
def test_ranks_axes_and_empty_tensors(form: str, rng: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    model = dropout_model(shape=[f"d{i}" for i in range(len(shape))], axes=axes, ratio=0.5, rng=rng)
    x = sample(shape)
    y, mask = draw(ort_session(expand(model, form=form)), x, training_mode=ON, step=np.array([4]))
    wanted = spatial_dropout(x, axes, 0.5, 7, 4, scale=2.0, rng=rng)
    assert_same_bits(y, wanted[0])
    np.testing.assert_array_equal(mask, wanted[1])


@pytest.mark.parametrize("form", BITS)
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_ratios_and_seeds(form: str, rng: str) -> None:
    x = sample((7, 4, 1, 1))
    seeds = [0, -1, 2**31 - 2, 2**32, 2**63 - 1, -(2**63)]
    for ratio, seed in itertools.chain(zip(itertools.repeat(0.5), seeds), itertools.product([0, 1, 0.35, 0.999], [7])):
        expanded = expand(dropout_model(ratio=ratio, seed=seed, rng=rng), form=form)
        mask = draw(ort_session(expanded, "ORT_DISABLE_ALL"), x, training_mode=ON, step=np.array([1]))[1]
        np.testing.assert_array_equal(mask, spatial_dropout(x, (2, 3), ratio, seed, 1, rng=rng)[1])


@pytest.mark.parametrize("form", BITS)
@pytest.mark.parametrize("rng", FRAMEWORKS)
@pytest.mark.parametrize("step", [None, [-1]])
def test_a_negative_step_is_a_fresh_draw(form: str, rng: str, step: list[int] | None) -> None:
    model = dropout_model(step=step, wrap=True, ratio=0.5, training_mode=True, rng=rng)
    session, x = ort_session(expand(model, form=form)), sample((100, 4, 2, 2))
    masks = [draw(session, x)[1] for _ in range(12)]
    assert len({mask.tobytes() for mask in masks}) == 12
    assert_binomial(sum(int(mask.sum()) for mask in masks), 12 * 400, 0.5)


@pytest.mark.parametrize("form", BITS)
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_a_constant_step_leaves_no_trace_of_drawing_one(form: str, rng: str) -> None:
    fixed = expand(dropout_model(training_mode=True, step=[5], rng=rng), form=form)
    assert [value.name for value in fixed.graph.input] == ["x"]
    assert not {"Dropout", "RandomUniformLike", "Mod"} & {node.op_type for node in fixed.graph.node}
    x = sample((5, 4, 3, 2))
    wanted = spatial_dropout(x, (2, 3), 0.3, 7, 5, scale=spec.explicit_scale(0.3), rng=rng)
    assert_same_bits(draw(ort_session(fixed), x)[0], wanted[0])


@pytest.mark.parametrize("form", BITS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_type_that_the_file_does_not_tell_is_found_at_run_time(form: str, dtype: str) -> None:
    """Inside a function nothing tells the type of X."""
    model = dropout_ir(dtype=dtype, rng="keras_tf", ratio=0.1)
    inner = model.graph[0]
    names = ["X", "training_mode", "step"]
    inputs = [ir.Value(name=name) for name in names]
    body = ir.Node(spec.DOMAIN, "SpatialDropout", inputs, list(inner.attributes.values()), num_outputs=2, name="drop")
    body.outputs[0].name, body.outputs[1].name = "Y", "M"
    imports = {"": 18, spec.DOMAIN: 1}
    graph = ir.Graph(inputs, body.outputs, nodes=[body], opset_imports=imports)
    function = ir.Function("mine", "Layer", graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    call = ir.Node("mine", "Layer", list(inner.inputs), outputs=[ir.Value(name=n) for n in ("y", "mask")])
    for old, new in zip(inner.outputs, call.outputs, strict=True):
        new.type, new.shape = old.type, old.shape
    model.graph.append(call)
    model.graph.outputs[:] = call.outputs
    model.graph.remove(inner, safe=True)
    model.opset_imports["mine"] = 1
    expanded = expand(ir.to_proto(model), form=form)
    x = sample((5, 4, 3, 2), dtype)
    mask = draw(ort_session(expanded), x, training_mode=ON, step=np.array([3]))[1]
    np.testing.assert_array_equal(mask, spatial_dropout(x, (2, 3), 0.1, 7, 3, rng="keras_tf")[1])


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("identity", "standard")])
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_fuse_gives_the_node_back(form: str, rng: str) -> None:
    model = dropout_model(rng=rng, ratio=0.35, seed=11)
    fused, report = fuse(expand(model, form=form))
    assert not report.refused
    (before,), (after,) = sd.find(model), sd.find(fused)
    assert (after.rng, after.ratio, after.seed, after.axes, after.scale) == (
        rng, before.ratio, 11, before.axes, before.scale,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_the_drawing_forms_keep_the_distribution(form: str, rng: str) -> None:
    mask = draw(ort_session(expand(dropout_model(rng=rng), form=form)), sample((500, 4, 2, 2)), training_mode=ON)[1]
    assert_binomial(int(mask.sum()), 2000, 0.7)


def test_a_type_that_the_dialect_lacks_is_refused_and_nothing_changes() -> None:
    model = dropout_ir(dtype="float64")
    model.graph[0].attributes["rng"] = ir.AttrString("rng", "keras_tf")
    for form in set(FORMS) - {"standard"}:
        with pytest.raises(SpecError, match="node 'drop': rng 'keras_tf' draws no masks for X of type float64"):
            expand(model, form=form)
    assert model.graph[0].op_type == "SpatialDropout"
