"""The function body draws every dialect, for every type, alone and beside others in one file."""

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxruntime
import pytest
from building import IR_TYPES, assert_same_bits, dropout_model
from expanding import draw, ort_session, with_float_ends
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.graph.controls import add_switches
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator.bodies import body
from onnx_spatialdrop.operator.bodies import decide as decide_lines

PAIRS = [(rng, name) for rng, dialect in dialects.DIALECTS.items() for name in dialect.tests]
FRAMEWORKS = spec.RNGS[1:]
ON = np.array(True)
STEPS = ([3], [2**31 - 2], [2**40 + 1], [5, 0, 2**33])


def many(pairs: Iterable[tuple[str, str]], opset: int = 18, ratio: float = 0.3) -> onnx.ModelProto:
    """Return a model with one node for each pair, on ones of shape (3, 4, 9): outputs are masks, as uint8."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset, spec.DOMAIN: 1}, name="g")
    switches = add_switches(graph)
    for index, (rng, dtype) in enumerate(pairs):
        x = ir.Value(name=f"x{index}", const_value=ir.tensor(np.ones((3, 4, 9), spec.DTYPES[dtype]), name=f"x{index}"))
        x.type, x.shape = ir.TensorType(IR_TYPES[dtype]), ir.Shape([3, 4, 9])
        graph.register_initializer(x)
        node = sd.spatial_dropout(
            x, ratio, axes=[2], training_mode=switches[0], step=switches[1], seed=7, rng=rng, name=f"{rng}_{dtype}"
        )
        graph.append(node)
        node.outputs[0].name, node.outputs[1].name = f"y{index}", f"mask{index}"
        graph.outputs.append(node.outputs[1])
    return ir.to_proto(ir.Model(graph, ir_version=9))


def check_masks(masks: Iterable[np.ndarray], pairs: Iterable[tuple[str, str]], step: list[int]) -> None:
    for mask, (rng, dtype) in zip(masks, pairs, strict=True):
        expected = reference.dropout_mask((3, 4, 9), [2], 0.3, 7, step, rng=rng, dtype=spec.DTYPES[dtype])
        np.testing.assert_array_equal(mask, expected, f"{rng} {dtype} {step}")


@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_every_dialect_and_type(rng: str, dtype: str) -> None:
    wrap = dtype in ("float32", "float64")
    model = dropout_model(dtype=dtype, rng=rng, ratio=0.1, wrap=wrap)
    attached = sd.attach(with_float_ends(model) if dtype == "bfloat16" else model)
    onnx.checker.check_model(attached, full_check=True)
    session = ort_session(attached)
    x = np.random.default_rng(0).random((3, 4, 5, 2)).astype(spec.DTYPES[dtype])
    given = x.astype(np.float32) if dtype == "bfloat16" else x
    for step in STEPS:
        y, mask = draw(session, given, training_mode=ON, step=np.array(step))
        expected = reference.spatial_dropout(x, (2, 3), 0.1, 7, step, scale=spec.explicit_scale(0.1, x.dtype), rng=rng)
        assert_same_bits(y.astype(x.dtype), -expected[0] if wrap else expected[0])
        np.testing.assert_array_equal(mask, expected[1])
    y, mask = draw(session, given, training_mode=np.array(False), step=np.array([3]))
    assert_same_bits(y.astype(x.dtype), -x if wrap else x)
    assert mask.all()


@pytest.mark.parametrize("opset", [18, 20, 21, 24])
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_every_opset(rng: str, opset: int) -> None:
    session = ort_session(sd.attach(many([(rng, "float32")], opset)))
    for step in STEPS:
        check_masks(session.run(None, {"training_mode": ON, "step": np.array(step)}), [(rng, "float32")], step)


def decide(rng: str, dtype: str, ratios: list[float], words: np.ndarray, level: str) -> list[np.ndarray]:
    """Run the part of a body that decides on given words, once a ratio; uint64 of shape (ratios, n)."""
    text = f"""
Decide <ratio> (X, {rng}_words) => ({rng}_dropped)
{{
  one = Constant <value_ints = [1]> ()
  all = Constant <value_ints = [-1]> ()
  ratio_ = Constant <value_float: float = @ratio> ()
{decide_lines.KIND}{decide_lines.comparison(rng, wide=True).replace("$", f"{rng}_")}
}}"""
    make, ends = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    names = [f"{index}" for index in range(len(ratios))]
    nodes = [make("Cast", ["x"], ["x_t"], to=IR_TYPES[dtype].value)]
    for name, ratio in zip(names, ratios, strict=True):
        nodes.append(make("Decide", ["x_t", f"words{name}"], [f"dropped{name}"], domain=spec.DOMAIN, ratio=ratio))
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [
            ends("x", onnx.TensorProto.FLOAT, [1]),
            *(ends(f"words{name}", onnx.TensorProto.UINT64, [None]) for name in names),
        ],
        [ends(f"dropped{name}", onnx.TensorProto.BOOL, [None]) for name in names],
    )
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(spec.DOMAIN, 1)]
    functions = list(body.parse([text], 18))
    model = onnx.helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=9)
    feeds = {f"words{name}": row for name, row in zip(names, words, strict=True)}
    return ort_session(model, level).run(None, {"x": np.ones(1, np.float32), **feeds})


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_thresholds_of_all_rates_and_of_ratios_that_round(rng: str, dtype: str, level: str) -> None:
    """Half a unit of a type to either side, and what rounds to 0; the words lie on both sides of each threshold."""
    near, test = np.float32(2.0**-25), dialects.DIALECTS[rng].tests[dtype]
    rounding = [1e-40, near, np.nextafter(near, np.float32(1)), 0.500122, 0.50048828125, 0.501953125, 1 - 2**-9]
    ratios = [*(k / 20 for k in range(21)), *map(float, rounding)]
    limits = [dialects.threshold(ratio, rng, dtype) for ratio in ratios]
    numbers = np.array([[0, limit - 1, limit, limit + 1, 2**test.bits - 1] for limit in limits])
    words = np.clip(numbers, 0, 2**test.bits - 1).astype(np.uint32) << np.uint32(test.shift)
    results = decide(rng, dtype, ratios, words.astype(np.uint64), level)
    for found, row, limit in zip(results, words, limits, strict=True):
        np.testing.assert_array_equal(found, ~dialects.kept(row, rng, dtype, limit), f"threshold {limit}")


def test_dialects_and_types_in_one_file() -> None:
    """One function serves all, in ONNX Runtime, onnx's evaluator, and after onnx's inliner and onnx_ir."""
    pairs = [("keras_tf", "float16"), ("philox", "float32"), ("keras_tf", "bfloat16")]
    model = sd.attach(many(pairs))
    assert sum(function.name == "SpatialDropout" for function in model.functions) == 1
    onnx.checker.check_model(model, full_check=True)
    inlined = onnx.inliner.inline_local_functions(ir.to_proto(ir.from_proto(model)))
    assert not inlined.functions
    runners = [ort_session(model, "ORT_DISABLE_ALL"), ort_session(inlined), ReferenceEvaluator(model)]
    for step in ([2**31 - 2], [5, 0, 2**33]):
        for runner in runners:
            check_masks(runner.run(None, {"training_mode": ON, "step": np.array(step)}), pairs, step)


def test_doubles_beside_other_types_and_dialects() -> None:
    pairs = [("keras_tf_xla", "float32"), ("keras_jax", "float64")]
    session = ort_session(sd.attach(many(pairs)))
    check_masks(session.run(None, {"training_mode": ON, "step": np.array([4])}), pairs, [4])


@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_a_negative_step_draws_afresh_every_run(rng: str) -> None:
    session = ort_session(sd.attach(dropout_model(shape=("N", 64), axes=(), ratio=0.5, wrap=True, rng=rng)))
    feeds = {"x": np.ones((4, 64), np.float32), "training_mode": ON}
    masks = [session.run(["mask"], feeds)[0] for _ in range(20)]
    assert len({mask.tobytes() for mask in masks}) == 20
    assert abs(sum(int(mask.sum()) for mask in masks) - 20 * 128) < 6 * np.sqrt(20 * 256 / 4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_a_node_of_a_dialect_that_the_function_does_not_know_stops_the_run(rng: str, training: bool) -> None:
    """A node that came after the function would draw other masks without a word."""
    attached = sd.attach(dropout_model())
    next(a for a in attached.graph.node[0].attribute if a.name == "rng").s = rng.encode()
    feeds = {"x": np.ones((3, 4, 2, 2), np.float32), "training_mode": np.array(training), "step": np.array([1])}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(attached.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="rng_or_type_is_unknown_to_the_function_attach_again"):
        session.run(None, feeds)
    assert len(sd.session(attached, "body").run(None, feeds)) == 2  # which attaches again


def test_a_type_that_the_dialect_lacks_stops_the_run() -> None:
    """The type may be unknown when the function is attached."""
    model = ir.from_proto(dropout_model(dtype="float64", wrap=True))
    model.graph[1].attributes["rng"] = ir.AttrString("rng", "keras_tf")
    model.graph[0].outputs[0].type = model.graph[1].outputs[0].type = None
    session = ort_session(ir.to_proto(sd.attach(model)))
    with pytest.raises(Exception, match="rng_or_type_is_unknown_to_the_function_attach_again"):
        draw(session, np.ones((3, 4, 2, 2)), training_mode=ON, step=np.array([1]))


def test_a_body_holds_the_helpers_that_it_needs_and_no_branch() -> None:
    names = {rng: [function.name for function in body.functions(18, [rng])] for rng in spec.RNGS}
    threefry = ["AddWords", "TurnWord", "Threefry2x32"]
    assert names == {
        "philox": ["SpatialDropout"],
        "keras_tf": ["SpatialDropout"],
        "keras_tf_xla": ["SpatialDropout"],
        "keras_jax": [*threefry, "SpatialDropout"],
    }
    everything = body.functions(18, spec.RNGS)
    assert [function.name for function in everything] == [*threefry, "SpatialDropout"]
    assert {function.name for function in everything} == body.OWN_FUNCTIONS
    used = {node.op_type for function in everything for node in function.all_nodes()}
    assert not used & {"If", "Loop", "Bernoulli", "RandomUniform", "RandomUniformLike", "RandomNormal"}


@pytest.mark.slow
@pytest.mark.parametrize("rng", FRAMEWORKS)
def test_rates_seeds_and_steps_at_large(rng: str) -> None:
    """All rates k / 20, 20 seeds, 5 steps, one and one a sample: in ONNX Runtime, one model a rate and seed."""
    pairs = [(rng, name) for name in dialects.DIALECTS[rng].tests if name != "float64"]
    generator = np.random.default_rng(0)
    for k in range(21):
        for seed in generator.integers(-(2**63), 2**63 - 1, 20).tolist():
            model = many(pairs, ratio=k / 20)
            for node in model.graph.node:
                next(a for a in node.attribute if a.name == "seed").i = seed
            session = ort_session(sd.attach(model), "ORT_DISABLE_ALL")
            for step in ([0], [1], [2], [3], [int(generator.integers(2**63 - 1))], [4, 2**62, 0]):
                masks = session.run(None, {"training_mode": ON, "step": np.array(step)})
                for mask, (_, dtype) in zip(masks, pairs, strict=True):
                    wanted = reference.dropout_mask(
                        (3, 4, 9), [2], k / 20, seed, step, rng=rng, dtype=spec.DTYPES[dtype]
                    )
                    np.testing.assert_array_equal(mask, wanted)
