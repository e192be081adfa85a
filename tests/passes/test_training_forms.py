"""to_inference means inference: dropout is gone, whatever its ratio or switch; batch norm uses what it learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test.loader
import onnx.parser
import onnx_ir as ir
import pytest
from inference import RANDOM, both_ways, operators, parse, results, with_half
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import TrainingLeftWarning
from onnx_spatialdrop.passes.to_inference import InferencePass, run


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("switch", ["true", "false", "fed", "default", "computed"])
def test_dropout_goes_whatever_its_ratio_and_switch(ratio: float, switch: str) -> None:
    mode = {"true": "t", "false": "t", "fed": "t", "default": "t", "computed": "on"}[switch]
    value = {"true": "1", "false": "0", "default": "1"}.get(switch)
    inputs = ", bool t" if value is None or switch == "default" else ""
    given = f"float r = {{{ratio}}}" + (f", bool t = {{{value}}}" if value else "")
    first = "on = Not(t)" if switch == "computed" else ""
    model = parse(
        f"g (float[N,3] x{inputs}) => (float[N,3] y) <{given}>"
        f" {{ {first} h = Relu(x) d = Dropout(h, r, {mode}) y = Neg(d) }}"
    )
    got = both_ways(model)
    assert operators(got) == ["Relu", "Neg"]
    assert [v.name for v in got.graph.input] == (["x", "t"] if switch == "computed" else ["x"])
    assert not got.graph.initializer


def test_a_ratio_that_is_fed_goes_too() -> None:
    got = both_ways(parse("g (float[N,3] x, float r, bool t) => (float[N,3] y) { d = Dropout(x, r, t) y = Neg(d) }"))
    assert operators(got) == ["Neg"]
    assert [v.name for v in got.graph.input] == ["x"]


def test_an_input_that_nothing_read_before_stays() -> None:
    text = (
        "g (float[2,5] x, bool training_mode, bool train) => (float[2,5] y) <bool training_mode = {1}, float r = {0.2}>"
    )
    got = both_ways(parse(f"{text} {{ h = Relu(x) y = Dropout(h, r, train) }}"))
    assert [v.name for v in got.graph.input] == ["x", "training_mode"]


@pytest.mark.parametrize("opset", [7, 9, 10, 12, 13, 21])
def test_a_mask_that_is_returned_is_true_of_its_shape_and_type(opset: int) -> None:
    mask = "float" if opset < 10 else "bool"
    drop = "Dropout <ratio: float = 0.5> (h)" if opset < 12 else "Dropout(h, r, t)"
    given = "" if opset < 12 else "<float r = {0.5}, bool t = {1}>"
    text = f"g (float[N,3] x) => (float[N,3] y, {mask}[N,3] m) {given} {{ h = Abs(x) d, m = {drop} y = Neg(d) }}"
    x = np.array([[1.0, np.nan, np.inf], [0.0, -2.0, 3.0]], np.float32)
    y, kept = results(both_ways(parse(text, opset, 7)), x=x)
    np.testing.assert_array_equal(y, -np.abs(x))
    np.testing.assert_array_equal(kept, np.ones((2, 3), (mask == "bool" and np.bool_) or np.float32))
    assert kept.dtype == (np.float32 if mask == "float" else np.bool_)


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("is_test", [0, 1])
def test_old_dropout_goes_with_and_without_is_test(opset: int, is_test: int) -> None:
    given = f"ratio: float = 0.5, is_test: int = {is_test}"
    got = both_ways(parse(f"g (float[N,3] x) => (float[N,3] y) {{ h = Relu(x) y = Dropout <{given}> (h) }}", opset, 3))
    assert operators(got) == ["Relu"]
    text = f"g (float[2,3] x) => (float[2,3] y, float[2,3] m) {{ h = Relu(x) y, m = Dropout <{given}> (h) }}"
    got = both_ways(parse(text, opset, 3))
    assert operators(got) == ["Constant", "Pow", "Relu"] or operators(got) == ["Relu", "Constant", "Pow"]
    assert [a.name for n in got.graph.node if n.op_type == "Pow" for a in n.attribute] == ["broadcast"] * (opset < 7)


def test_a_mask_that_is_read_is_true() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) <float r = {0.5}, bool t = {1}, float[1] z = {7}>"
    model = parse(f"{text} {{ h = Relu(x) d, m = Dropout(h, r, t) y = Where(m, d, z) }}")
    x = RANDOM.standard_normal((64, 3)).astype(np.float32)
    with pytest.warns(TrainingLeftWarning, match="its mask is true now, and what reads that is not proven"):
        got = both_ways(model)
    assert "Dropout" not in operators(got)
    np.testing.assert_array_equal(results(got, x=x)[0], np.maximum(x, 0))


def test_dropout_of_a_scalar_goes() -> None:
    model = parse(
        "g (float x) => (float y, bool m) <float r = {0.5}, bool t = {1}> { d, m = Dropout(x, r, t) y = Neg(d) }"
    )
    y, mask = results(both_ways(model), x=np.array(3, np.float32))
    assert (y, mask, mask.shape) == (-3, True, ())


def test_dropout_in_loops_scans_ifs_and_functions_goes() -> None:
    inside = "k = Identity(c) d = Dropout(a, r, t) z = Relu(d)"
    loop = f"b (int64 i, bool c, float[N,3] a) => (bool k, float[N,3] z) {{ {inside} }}"
    model = parse(
        "g (float[N,3] x, int64 n, bool go) => (float[N,3] y) <float r = {0.5}, bool t = {1}>"
        f" {{ h = Loop(n, go, x) <body = {loop}> y = f.block(h, r, t) }}"
        ' <domain: "f", opset_import: ["": 18]> block (a, p, s) => (b) { d = Dropout(a, p, s) b = Neg(d) }'
    )
    got = both_ways(model)
    assert operators(got) == ["Loop", "block"]
    assert [n.op_type for n in got.graph.node[0].attribute[0].g.node] == ["Identity", "Relu"]
    assert [n.op_type for n in got.functions[0].node] == ["Neg"]
    assert list(got.functions[0].input) == ["a"]
    assert not got.graph.initializer
    x = RANDOM.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(results(got, x=x, n=np.array(3), go=np.array(True))[0], -np.maximum(x, 0))


def test_a_name_that_means_something_else_inside_a_branch_is_not_caught() -> None:
    """The branch has an h of its own, so that what read d there must not read h."""
    branch = "b () => (float[N] u) { q = Neg(d) h = Abs(q) u = Exp(h) }"
    text = "g (float[N] x, bool c) => (float[N] y) <float r = {0.5}, bool t = {1}> { h = Relu(x) d = Dropout(h, r, t)"
    model = parse(f"{text} y = If(c) <then_branch = {branch}, else_branch = e () => (float[N] v) {{ v = Neg(x) }}> }}")
    got = sd.to_inference(model)
    assert operators(got) == ["Relu", "Identity", "If"]
    x = np.array([1, -2, 3], np.float32)
    expected = ReferenceEvaluator(got).run(None, {"x": x, "c": np.array(True)})[0]
    np.testing.assert_allclose(expected, np.exp(np.maximum(x, 0)))


def test_an_if_goes_whose_branches_became_the_same() -> None:
    then = "b () => (float[N] u) <float k = {2}> { m = Mul(h, k) d = Dropout(m, r, t) u = Neg(d) }"
    other = "e () => (float[N] v) <float k2 = {2}> { w = Mul(h, k2) v = Neg(w) }"
    text = "g (float[N] x, bool train) => (float[N] y) <float r = {0.5}, bool t = {1}> { h = Relu(x)"
    model = parse(f"{text} y = If(train) <then_branch = {then}, else_branch = {other}> }}")
    got = both_ways(model)
    assert operators(got) == ["Relu", "Constant", "Mul", "Neg"]
    assert [v.name for v in got.graph.input] == ["x"]
    x = np.array([1, -2, 3], np.float32)
    np.testing.assert_array_equal(results(got, x=x)[0], -2 * np.maximum(x, 0))
    different = parse(f"{text} y = If(train) <then_branch = {then}, else_branch = {other.replace('{2}', '{3}')}> }}")
    assert operators(both_ways(different)) == ["Relu", "If"]


SERIES = (
    " [u{i}] u{i} = RandomUniform <shape: ints = [1,4,1,1], dtype: int = 1> () b{i} = Greater(u{i}, half)"
    " m{i} = Cast <to: int = 1> (b{i}) q{i} = Mul(z{i}, m{i}) w{i} = Mul(q{i}, two) z{j} = {between}(w{i})"
)


@pytest.mark.parametrize("between", ["Identity", "Relu"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_run_takes_all_dropouts_in_series_inside_a_branch(count: int, between: str) -> None:
    drops = "".join(SERIES.format(i=i, j=i + 1, between=between) for i in range(count))
    branch = f"b () => (float[N,4,3,3] z{count}) {{ z0 = Relu(x) {drops} }}"
    text = "g (float[N,4,3,3] x, bool c) => (float[N,4,3,3] y) <float half = {0.5}, float two = {2}> {"
    model = parse(
        f"{text} y = If(c) <then_branch = {branch}, else_branch = e () => (float[N,4,3,3] v) {{ v = Neg(x) }}> }}"
    )
    got = both_ways(model)
    inside = [node.op_type for node in got.graph.node[0].attribute[0].g.node]
    assert set(inside) <= {"Relu", "Identity"}
    assert not got.graph.initializer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnxs_own_node_tests_hold_no_dropout_afterwards_and_are_untouched_otherwise() -> None:
    cases = onnx.backend.test.loader.load_model_tests(kind="node")
    assert len(cases) > 1500
    changed = set()
    for case in cases:
        model = case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")
        outcome = run(model)
        assert not any(node.op_type == "Dropout" for node in outcome.model.graph.node)
        if outcome.removed:
            changed.add(case.name)
        else:
            assert outcome.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert all("dropout" in name or name.endswith("_training_mode") for name in changed)
    assert len(changed) >= 14


def test_the_pass_counts_what_it_switches_off() -> None:
    model = ir.from_proto(with_half("d = Dropout(x, half) y = Neg(d)"))
    rewrite = InferencePass()
    assert rewrite.call(model).modified
    assert (rewrite.removed, rewrite.left) == (1, [])
