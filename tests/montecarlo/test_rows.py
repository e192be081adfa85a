"""Draws are laid behind each other only where that is proven: graphs that mix samples, one by one and at random."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from montecarlo import random_graphs
from montecarlo.running import cut_runs, plan_of, whole_runs

DRAWS = 4

#: Bodies from d, dropped [N, 4, 6], to y; what ends the proof, "" where it holds; the number of samples in the file.
GRAPHS = {
    "layer norm and softmax": (
        "<float[6] s = {1.,1.,1.,1.,1.,1.}> l = LayerNormalization (d, s) y = Softmax (l)",
        "",
        "N",
    ),
    "reshape 0, -1": ("<int64[2] t = {0, -1}> y = Reshape (d, t)", "", "N"),
    "reshape -1, 24": ("<int64[2] t = {-1, 24}> y = Reshape (d, t)", "", "N"),
    "rows merged and back": (
        "<int64[2] t = {-1, 6}, int64[3] u = {-1, 4, 6}> a = Reshape (d, t) b = Softmax (a) y = Reshape (b, u)",
        "",
        "N",
    ),
    "reshape by the input's shape": (
        "<int64[1] i = {0}, int64[1] k = {24}> s = Shape (x) n = Gather (s, i) t = Concat <axis = 0> (n, k) "
        "y = Reshape (d, t)",
        "",
        "N",
    ),
    "fixed batch, reshape 2, 24": ("<int64[2] t = {2, 24}> y = Reshape (d, t)", "", "2"),
    "fixed batch, reshape 2, -1": ("<int64[2] t = {2, -1}> y = Reshape (d, t)", "", "2"),
    "fixed batch, reshape 8, 6": ("<int64[2] t = {8, 6}> y = Reshape (d, t)", "", "2"),
    "batch norm": (
        "<float[4] s = {1.,1.,1.,1.}, float[4] z = {0.,0.,0.,0.}> y = BatchNormalization (d, s, z, z, s)",
        "",
        "N",
    ),
    "batch norm in training": (
        "<float[4] s = {1.,1.,1.,1.}, float[4] z = {0.,0.,0.,0.}> "
        "y, m, v = BatchNormalization <training_mode = 1> (d, s, z, z, s)",
        "statistics of the whole batch",
        "N",
    ),
    "minus the batch's mean": (
        "<int64[1] a = {0}> m = ReduceMean (d, a) y = Sub (d, m)",
        "it reduces over the samples",
        "N",
    ),
    "softmax over the batch": ("y = Softmax <axis = 0> (d)", "it normalises over the samples", "N"),
    "dynamic quantisation": (
        "q, s, z = DynamicQuantizeLinear (d) y = DequantizeLinear (q, s, z)",
        "one scale from the whole batch",
        "N",
    ),
    "the first sample": ("<int64[1] i = {0}> f = Gather (d, i) y = Add (d, f)", "it picks samples", "N"),
    "samples times samples": (
        "f = Flatten (d) g = Transpose (f) y = MatMul (f, g)",
        "along different axes",
        "N",
    ),
    "sum over the batch": ("<int64 a = {0}> y = CumSum (d, a)", "it adds up over the samples", "N"),
    "samples behind samples": ("y = Concat <axis = 0> (d, d)", "it puts samples behind samples", "N"),
    "a constant of batch 2": (
        "<float[2,1,1] c = {1., 2.}> y = Add (d, c)",
        "it drops from what all samples share",
        "2",
    ),
    "LSTM": (
        "<float[1,4,6] w = {1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.}, "
        "float[1,4,1] r = {1.,-1.,1.,-1.}> t = Transpose <perm = [1,0,2]> (d) "
        "h, e, f = LSTM <hidden_size = 1> (t, w, r) s = Squeeze (h, one) y = Transpose <perm = [1,0,2]> (s)",
        "",
        "N",
    ),
    "LSTM, constant state of batch 2": (
        "<float[1,4,6] w = {1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.,1.,-1.}, "
        "float[1,4,1] r = {1.,-1.,1.,-1.}, float[1,2,1] i = {1.,2.}> t = Transpose <perm = [1,0,2]> (d) "
        "h, e, f = LSTM <hidden_size = 1> (t, w, r, , , i, i) s = Squeeze (h, one) "
        "y = Transpose <perm = [1,0,2]> (s)",
        "it drops from what all samples share",
        "2",
    ),
    "if on the batch's largest": (
        "<float t = {1.35}> m = ReduceMax <keepdims = 0> (d) c = Greater (m, t) "
        "y = If (c) <then_branch = a () => (float[N,4,6] o) { o = Neg (d) }, "
        "else_branch = b () => (float[N,4,6] p) { p = Identity (d) }>",
        "it reduces over the samples",
        "N",
    ),
    "divided by the number of samples": (
        "<int64[1] i = {0}> s = Shape (d) n = Gather (s, i) f = Cast <to = 1> (n) y = Div (d, f)",
        "it computes with the number of samples",
        "N",
    ),
    "each sample's number": (
        "<int64 i = {0}, int64 k = {1}, int64[3] t = {-1, 1, 1}> s = Shape (d) n = Gather (s, i) "
        "r = Range (i, n, k) f = Cast <to = 1> (r) g = Reshape (f, t) y = Add (d, g)",
        "it counts the samples",
        "N",
    ),
}  # fmt: skip


def model_of(body: str, batch: str, axes: str = "[2]") -> onnx.ModelProto:
    head, _, nodes = body.partition(">") if body.startswith("<") else ("<", "", body)
    weights = ", ".join(part for part in (head[1:], "int64[1] one = {1}") if part)
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
        g (float[{batch},4,6] x, bool training_mode, int64[steps] step) => (float y)
        <{weights}, bool training_mode = {{0}}, int64[1] step = {{-1}}>
        {{ d, mask = onnx_spatialdrop.SpatialDropout <axes = {axes}, ratio = 0.3, seed = 9, scale = 0.0>
               (x, training_mode, step)
           {nodes} }}""")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_mixes_samples_is_not_proven_and_right_all_the_same(name: str) -> None:
    body, ends, batch = GRAPHS[name]
    model = model_of(body, batch)
    assert ends in plan_of(model).ends
    assert bool(ends) == bool(plan_of(model).ends)
    x = np.random.default_rng(0).random((2, 4, 6)).astype(np.float32)
    first = np.array([300, 5])
    if "training" in name:  # ONNX Runtime updates the statistics, which are weights here, in place
        return
    whole = whole_runs(model, {"x": x}, first, DRAWS)
    np.testing.assert_allclose(
        cut_runs(model, {"x": x}, first, DRAWS).reshape(whole.shape), whole, rtol=1e-5, atol=1e-6
    )


def test_laid_behind_each_other_unproven_the_draws_would_be_wrong() -> None:
    """The graphs above are no straw men: the proof is what keeps them right."""
    body, _, _ = GRAPHS["minus the batch's mean"]
    x = np.random.default_rng(0).random((2, 4, 6)).astype(np.float32)
    model = model_of(body, "N")
    whole = whole_runs(model, {"x": x}, np.array([300, 5]), DRAWS)
    tiled = whole_runs(model, {"x": np.tile(x, (DRAWS, 1, 1))}, np.repeat(np.arange(DRAWS), 2) + [300, 5] * DRAWS, 1)
    assert np.abs(tiled.reshape(whole.shape) - whole).max() > 0.01


def test_one_mask_for_all_samples_is_drawn_by_the_first_samples_step() -> None:
    model = model_of("y = Identity (d)", "N", "[0, 2]")
    x = np.random.default_rng(0).random((3, 4, 6)).astype(np.float32)
    assert "axis 0 is shared" in plan_of(model).ends
    cut = cut_runs(model, {"x": x}, np.array([7, 100, 200]), DRAWS)
    np.testing.assert_array_equal(cut.reshape(DRAWS, 3, 4, 6), whole_runs(model, {"x": x}, np.array([7]), DRAWS))


def check_random(seeds: range) -> dict[str, int]:
    """Compare random graphs with whole runs; return how many were proven, refused and skipped (they do not run)."""
    counts = {"proven": 0, "refused": 0, "skipped": 0}
    first = np.arange(random_graphs.ROWS) * 1000 + 7
    for seed in seeds:
        model = random_graphs.random_model(seed)
        feeds = {"x": random_graphs.feed(model, seed)}
        try:
            whole = whole_runs(model, feeds, first, DRAWS)
        except Exception:  # noqa: BLE001 - a step a sample does not fit, or the graph does not
            counts["skipped"] += 1
            continue
        plan = plan_of(model)
        counts["proven" if plan.proven else "refused"] += 1
        if not plan.proven:
            continue
        cut = cut_runs(model, feeds, first, DRAWS)
        np.testing.assert_allclose(cut.reshape(whole.shape), whole, rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}")
    return counts


def test_no_random_graph_is_proven_and_wrong() -> None:
    counts = check_random(range(200))
    assert counts["proven"] > 40
    assert counts["refused"] > 60


@pytest.mark.slow
def test_no_random_graph_of_ten_thousand_is_proven_and_wrong() -> None:
    counts = check_random(range(10_000, 20_000))
    assert counts["proven"] > 2000
