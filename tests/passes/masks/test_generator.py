"""Many nodes draw from one generator, and each draws the bits that the definition gives it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import onnxruntime
import pytest
from building import assert_same_bits
from expanding import ort_session
from many_nodes import compare, many, model_of, tensors
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.fuse.policy import run as fuse

MODELS = Path(__file__).parents[3] / "models"
FORMS = ["philox", "philox-int32"]


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
def test_onnx_irs_passes_take_the_generator_of_a_function(form: str) -> None:
    """Written out where it is called, no branch may hand on a value from outside as it is."""
    model = sd.expand(sd.load(MODELS / "digits_function.onnx"), form=form)
    steps = common.InlinePass(), common.CommonSubexpressionEliminationPass(), common.IdentityEliminationPass()
    assert ir.passes.Sequential(*steps)(model).modified


@pytest.mark.parametrize("form", FORMS)
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
