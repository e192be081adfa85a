"""Many nodes draw from one generator, and each draws the bits that the definition gives it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import assert_same_bits
from expanding import ort_session
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.fuse.policy import run as fuse

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}
FORMS = ["philox", "philox-int32"]
SIZES = {"A": 3, "B": 6}


def node(place: int, **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(
        "SpatialDropout",
        [f"x{place}", "training_mode", "step"],
        [f"y{place}", f"m{place}"],
        name=f"drop{place}",
        domain=spec.DOMAIN,
        **{key: value for key, value in attributes.items() if key not in ("axes", "shape", "dtype")},
    )
    made.attribute.append(helper.make_attribute("axes", attributes["axes"], attr_type=onnx.AttributeProto.INTS))
    return made


def many(
    rng: np.random.Generator, opset: int, count: int, even: bool, strata: tuple[int, ...] = (1,)
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Return a model of nodes side by side, and what each of them is."""
    parts, strata = [], int(rng.choice(strata))
    for _ in range(count):
        shape: list[int | str] = ["N", *(int(n) for n in rng.integers(1, 7, rng.integers(0, 4)))]
        if even and len(shape) > 1:
            shape[1] = 4 * int(rng.integers(1, 4))
        elif len(shape) > 2 and rng.random() < 0.5:
            shape[-1] = str(rng.choice(["A", "B"]))
        first = 2 if even else 1
        part = {
            "shape": shape,
            "axes": [axis for axis in range(first, len(shape)) if rng.random() < 0.4],
            "ratio": float(np.float32(rng.choice([0, 1, 0.5, 0.2, 0.03]))),
            "seed": int(rng.integers(-(2**63), 2**63)),
            "scale": float(rng.choice([0, 1.25])),
            "dtype": str(rng.choice(list(TYPES))),
            "strata": strata,
        }
        parts.append(part)
    return model_of(parts, opset), parts


def model_of(parts: list[dict[str, Any]], opset: int = 20) -> onnx.ModelProto:
    switches = [
        helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []),
        helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]),
    ]
    kinds = [TYPES[part["dtype"]] for part in parts]
    inputs = [
        helper.make_tensor_value_info(f"x{place}", kind, part["shape"])
        for place, (part, kind) in enumerate(zip(parts, kinds, strict=True))
    ]
    outputs = []
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        masked = [1 if axis in part["axes"] else size for axis, size in enumerate(part["shape"])]
        outputs.append(helper.make_tensor_value_info(f"y{place}", kind, part["shape"]))
        outputs.append(helper.make_tensor_value_info(f"m{place}", TensorProto.BOOL, masked))
    defaults = [
        numpy_helper.from_array(np.array(False), "training_mode"),
        numpy_helper.from_array(np.array([-1]), "step"),
    ]
    nodes = [node(place, **part) for place, part in enumerate(parts)]
    graph = helper.make_graph(nodes, "many", inputs + switches, outputs, defaults)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(spec.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def tensors(rng: np.random.Generator, parts: list[dict[str, Any]], batch: int) -> dict[str, np.ndarray]:
    sizes = {**SIZES, "N": batch}
    shapes = [[sizes.get(size, size) for size in part["shape"]] for part in parts]
    return {
        f"x{place}": rng.standard_normal(shape).astype(part["dtype"])
        for place, (shape, part) in enumerate(zip(shapes, parts, strict=True))
    }


def compare(results: list[np.ndarray], feeds: dict[str, np.ndarray], parts: list[dict[str, Any]], step: Any) -> None:
    for place, part in enumerate(parts):
        wanted = spatial_dropout(
            feeds[f"x{place}"], part["axes"], part["ratio"], part["seed"], step, True, part["scale"],
            strata=part["strata"],
        )  # fmt: skip
        assert_same_bits(results[2 * place], wanted[0])
        np.testing.assert_array_equal(results[2 * place + 1], wanted[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("opset", [18, 21, 22, 23])
@pytest.mark.parametrize("even", [True, False])
def test_every_node_draws_its_own_bits(form: str, level: str, opset: int, even: bool) -> None:
    rng = np.random.default_rng([opset, even])
    for count in (1, 2, 5):
        model, parts = many(rng, opset, count, even, (1, 1, 3, 31) if form == "philox" else (1,))
        expanded = sd.expand(model, form=form)
        onnx.checker.check_model(expanded, full_check=True)
        session = ort_session(expanded, level)
        for batch in (1, 3):
            feeds = tensors(rng, parts, batch)
            for step in (np.array([0]), np.array([2**40 + 7]), rng.integers(0, 2**63 - 1, batch)):
                compare(session.run(None, {**feeds, "training_mode": np.array(True), "step": step}), feeds, parts, step)
            idle = session.run(None, feeds)
            for place in range(count):
                assert_same_bits(idle[2 * place], feeds[f"x{place}"])
                assert idle[2 * place + 1].all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [["N", "A", "B"], ["N", 3, 1500]])
def test_nodes_of_equal_sizes_draw_one_after_the_other(form: str, shape: list[int | str]) -> None:
    rng = np.random.default_rng(2)
    part = {"shape": shape, "axes": [], "scale": 1.25, "strata": 31 if form == "philox" else 1}
    kinds = [(0.5, "float32"), (0.25, "float64"), (0.0, "float16")]
    parts = [{**part, "seed": seed, "ratio": ratio, "dtype": kind} for seed, (ratio, kind) in enumerate(kinds)]
    expanded = sd.expand(model_of(parts), form=form)
    assert digest(expanded)["Scan"] == 1
    session = ort_session(expanded)
    for batch in (1, 3):
        feeds = tensors(rng, parts, batch)
        for step in (np.array([9]), rng.integers(0, 2**40, batch)):
            results = session.run(None, {**feeds, "training_mode": np.array(True), "step": step})
            compare(results, feeds, parts, step)
        assert all(mask.all() for mask in session.run(["m0", "m1", "m2"], feeds))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("even", [True, False])
def test_the_reference_evaluator_draws_them_too(form: str, even: bool) -> None:
    rng = np.random.default_rng(5)
    model, parts = many(rng, 20, 4, even)
    evaluator = ReferenceEvaluator(sd.expand(model, form=form, target="reference"))
    feeds = tensors(rng, parts, 3)
    for step in (np.array([9]), np.array([3, 2**40, 1])):
        results = evaluator.run(None, {**feeds, "training_mode": np.array(True), "step": step})
        compare(results, feeds, parts, step)


def digest(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator stands in a model, branches included."""
    found: dict[str, int] = {}
    for each in ir.from_proto(model).graph.all_nodes():
        found[each.op_type] = found.get(each.op_type, 0) + 1
    return found


def test_a_node_more_costs_three_nodes() -> None:
    part = {"shape": ["N", 8, "H"], "axes": [2], "ratio": 0.5, "scale": 2.0, "dtype": "float32", "strata": 1}
    counts = []
    for number in (2, 3, 58):
        model = model_of([{**part, "seed": place} for place in range(number)], 22)
        del model.graph.output[1::2]
        counts.append(sum(digest(sd.expand(model, form="philox")).values()))
    assert counts[1] - counts[0] == 3
    assert counts[2] == counts[0] + 56 * 3
    assert counts[0] - 6 <= 130


@pytest.mark.parametrize("form", FORMS)
def test_tied_seeds_stay_equal_and_a_negative_step_is_fresh(form: str) -> None:
    part = {"shape": ["N", 64], "axes": [], "ratio": 0.5, "scale": 2.0, "dtype": "float32", "strata": 1}
    model = model_of([{**part, "seed": seed} for seed in (1, 2, 1)])
    session = ort_session(sd.expand(model, form=form))
    feeds = {**{f"x{place}": np.ones((2, 64), np.float32) for place in range(3)}, "training_mode": np.array(True)}
    masks = [session.run(["m0", "m1", "m2"], feeds) for _ in range(8)]
    assert all(np.array_equal(first, third) for first, _, third in masks)
    assert len({mask.tobytes() for run in masks for mask in run}) == 16


LOOP = """
<ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
outer (float[N,6] x, bool training_mode, int64[steps] step) => (float[N,6] y, float[T,N,6] all)
<bool training_mode = {0}, int64[1] step = {-1}, int64 three = {3}, bool yes = {1}, int64[1] one = {1}>
{
  y, last, all = Loop (three, yes, x, step) <body = body (int64 i, bool go, float[N,6] state, int64[steps] s)
    => (bool go_out, float[N,6] dropped, int64[steps] next, float[N,6] shown)
  {
    go_out = Identity (go)
    a, m = onnx_spatialdrop.SpatialDropout <axes: ints = [], ratio = 0.5, seed = 3> (state, training_mode, s)
    dropped, m2 = onnx_spatialdrop.SpatialDropout <axes = [1], ratio = 0.2, seed = 4> (a, training_mode, s)
    next = Add (s, one)
    shown = Identity (dropped)
  }>
}
"""

BRANCH = """
<ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
outer (float[N,6] x, bool which, bool training_mode, int64[steps] step) => (float[N,6] y)
<bool training_mode = {0}, int64[1] step = {-1}>
{
  h, m = onnx_spatialdrop.SpatialDropout <axes: ints = [], ratio = 0.5, seed = 3> (x, training_mode, step)
  y = If (which) <
    then_branch = then () => (float[N,6] a) {
      a, m1 = onnx_spatialdrop.SpatialDropout <axes = [1], ratio = 0.5, seed = 4> (h, training_mode, step)
    },
    else_branch = other () => (float[N,6] b) { b = Neg (h) }
  >
}
"""

FUNCTION = """
<ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1, "f": 1]>
outer (float[N,6] x, bool training_mode, int64[steps] step) => (float[N,6] y)
<bool training_mode = {0}, int64[1] step = {-1}>
{
  h = f.block (x, training_mode, step)
  y = f.block (h, training_mode, step)
}
<domain: "f", opset_import: ["": 20, "onnx_spatialdrop": 1]>
block (x, t, s) => (y)
{
  y, m = onnx_spatialdrop.SpatialDropout <axes: ints = [], ratio = 0.5, seed = 3, scale = 2.0> (x, t, s)
}
"""


def drop(x: np.ndarray, axes: list[int], ratio: float, seed: int, step: int) -> np.ndarray:
    return spatial_dropout(x, axes, ratio, seed, np.array([step]))[0]


@pytest.mark.parametrize("form", ["philox", "philox-int32"])
def test_a_loop_draws_in_its_body(form: str) -> None:
    session = ort_session(sd.expand(onnx.parser.parse_model(LOOP), form=form))
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    _, shown = session.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([5])})
    for turn in range(3):
        x = drop(drop(x, [], 0.5, 3, 5 + turn), [1], 0.2, 4, 5 + turn)
        assert_same_bits(shown[turn], x)


@pytest.mark.parametrize("form", ["philox", "philox-int32"])
def test_a_branch_reads_its_mask_from_outside(form: str) -> None:
    session = ort_session(sd.expand(onnx.parser.parse_model(BRANCH), form=form))
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    feeds = {"x": x, "training_mode": np.array(True), "step": np.array([5])}
    h = drop(x, [], 0.5, 3, 5)
    assert_same_bits(session.run(None, {**feeds, "which": np.array(True)})[0], drop(h, [1], 0.5, 4, 5))
    assert_same_bits(session.run(None, {**feeds, "which": np.array(False)})[0], -h)


@pytest.mark.parametrize("form", ["philox", "philox-int32"])
def test_a_function_has_a_generator_of_its_own(form: str) -> None:
    expanded = sd.expand(onnx.parser.parse_model(FUNCTION), form=form)
    session = ort_session(expanded)
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    y = session.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([5])})[0]
    assert_same_bits(y, drop(drop(x, [], 0.5, 3, 5), [], 0.5, 3, 5))


@pytest.mark.parametrize("text", [LOOP, BRANCH, FUNCTION])
def test_fuse_gives_the_nodes_back(text: str) -> None:
    model = onnx.parser.parse_model(text)
    before = {(found.seed, found.axes, found.ratio, found.step) for found in sd.find(model)}
    fused, report = fuse(sd.expand(model, form="philox"))
    assert {(found.seed, found.axes, found.ratio, found.step) for found in sd.find(fused)} == before
    assert report.refused == []
    assert digest(fused) == digest(model)


def test_fuse_knows_many_nodes_without_their_tags() -> None:
    rng = np.random.default_rng(1)
    parts = [
        {"shape": ["N", 8, 5], "axes": axes, "ratio": float(np.float32(ratio)), "seed": int(rng.integers(2**62)),
         "scale": 1.25, "dtype": "float32", "strata": 1}
        for axes in ([2], []) for ratio in (0.2, 0.5)
    ]  # fmt: skip
    model = model_of(parts)
    del model.graph.output[1::2]
    expanded = sd.expand(model, form="philox")
    for each in expanded.graph.node:
        each.ClearField("metadata_props")
    fused, report = fuse(expanded)
    found = sorted((tuple(node.axes), node.ratio, node.seed) for node in sd.find(fused))
    assert found == sorted((tuple(part["axes"]), part["ratio"], part["seed"]) for part in parts)
    assert report.refused == []
    assert digest(sd.remove(fused)) == digest(sd.remove(model))


def test_an_optimised_file_can_be_read_again(tmp_path: Any) -> None:
    model, parts = many(np.random.default_rng(3), 20, 3, True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(sd.expand(model, form="philox").SerializeToString(), options)
    session = onnxruntime.InferenceSession(tmp_path / "optimised.onnx")
    feeds = tensors(np.random.default_rng(0), parts, 2)
    compare(session.run(None, {**feeds, "training_mode": np.array(True), "step": np.array([4])}), feeds, parts, [4])


@pytest.mark.slow
def test_a_hundred_thousand_draws_of_random_nodes() -> None:
    """Masks and values of random nodes at random steps, in both forms and both kernels, are the definition's."""
    compared = 0
    for number in range(10**6):
        rng = np.random.default_rng([7, number])
        opset, even, count = int(rng.choice([18, 20, 22, 23])), bool(rng.random() < 0.5), int(rng.integers(1, 60))
        model, parts = many(rng, opset, count, even, (1, 1, 3, 31, 127))
        sessions = [ort_session(sd.expand(model, form=form), "ORT_ENABLE_ALL") for form in FORMS]
        sessions += [sd.session(model, kernel) for kernel in ("native", "python")]
        for batch in (1, 4):
            feeds = tensors(rng, parts, batch)
            for step in (rng.integers(0, 2**63 - 1, 1), rng.integers(0, 2**40, batch)):
                given = {**feeds, "training_mode": np.array(True), "step": step}
                for session in sessions:
                    compare(session.run(None, given), feeds, parts, step)
                    compared += 2 * count
        if compared >= 10**5:
            return
