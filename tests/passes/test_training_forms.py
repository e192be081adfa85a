"""to_inference means inference: dropout is gone, whatever its ratio or switch; batch norm uses what it learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.loader
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.errors import TrainingLeftError, TrainingLeftWarning
from onnx_spatialdrop.passes.to_inference import InferencePass, run

RANDOM = np.random.default_rng(0)


def parse(text: str, opset: int = 18, ir_version: int = 9) -> onnx.ModelProto:
    domains = "".join(f', "{domain}": 1' for domain in ("onnx_spatialdrop", "f") if f"{domain}." in text)
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]> {text}')


def both_ways(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the inference model, which is the same for a ModelProto and for an ir.Model, and stays what it is."""
    got = sd.to_inference(model)
    through_ir = ir.to_proto(sd.to_inference(ir.from_proto(model)))
    assert [n.op_type for n in got.graph.node] == [n.op_type for n in through_ir.graph.node]
    assert [v.name for v in got.graph.input] == [v.name for v in through_ir.graph.input]
    assert [v.name for v in got.graph.initializer] == [v.name for v in through_ir.graph.initializer]
    again = sd.to_inference(got)
    assert again.SerializeToString(deterministic=True) == got.SerializeToString(deterministic=True)
    return got


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def results(model: onnx.ModelProto, **feeds: Any) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


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


NORM = "scale, bias, mean, var"
LEARNED = "<float[3] scale = {1, 2, 3}, float[3] bias = {0, 1, 2}, float[3] mean = {1, 1, 2}, float[3] var = {4, 1, 9}>"


@pytest.mark.parametrize("opset", [14, 15, 18])
def test_batch_norm_in_training_mode_uses_what_it_learned(opset: int) -> None:
    text = f"g (float[N,3,2] x) => (float[N,3,2] y, float[3] m, float[3] v) {LEARNED} {{"
    node = f"y, m, v = BatchNormalization <training_mode: int = 1, momentum: float = 0.9> (x, {NORM}) }}"
    got = both_ways(parse(f"{text} {node}", opset))
    x = RANDOM.standard_normal((4, 3, 2)).astype(np.float32)
    y, mean, var = results(got, x=x)
    scale, bias, m, v = (np.array(a, np.float32).reshape(3, 1) for a in ((1, 2, 3), (0, 1, 2), (1, 1, 2), (4, 1, 9)))
    np.testing.assert_allclose(y, (x - m) / np.sqrt(v + 1e-5) * scale + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mean, m.reshape(-1))
    np.testing.assert_array_equal(var, v.reshape(-1))
    np.testing.assert_allclose(results(got, x=x[:1])[0], y[:1], rtol=1e-6)  # a sample alone is what it is in a batch


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 13])
def test_batch_norm_of_old_opsets(opset: int) -> None:
    given = {1: "<consumed_inputs: ints = [0, 0, 0, 1, 1], is_test: int = 0>", 6: "<is_test: int = 0>"}.get(opset, "")
    text = f"g (float[N,3,2] x) => (float[N,3,2] y) {LEARNED} {{ h = Abs(x)"
    got = both_ways(parse(f"{text} y, m, v, sm, sv = BatchNormalization {given} (h, {NORM}) }}", opset, 4))
    node = got.graph.node[1]
    assert list(node.output) == ["y"]
    assert [a.i for a in node.attribute if a.name == "is_test"] == ([1] if opset < 7 else [])


def test_batch_norm_whose_saved_mean_is_used_stays_and_is_named() -> None:
    text = f"g (float[N,3,2] x) => (float[N,3,2] y, float[3] sm) {LEARNED} {{"
    model = parse(f"{text} [norm] y, m, v, sm, sv = BatchNormalization (x, {NORM}) }}", 9, 4)
    with pytest.warns(TrainingLeftWarning, match="'norm' .BatchNormalization.: its saved mean or variance is used"):
        got = sd.to_inference(model)
    assert got == model


def test_batch_norm_in_inference_mode_stays_as_it_is() -> None:
    node = f"y = BatchNormalization <training_mode: int = 0> (x, {NORM})"
    model = parse(f"g (float[N,3,2] x) => (float[N,3,2] y) {LEARNED} {{ {node} }}", 15)
    assert sd.to_inference(model) == model


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


NOISE = "[eps] n = RandomNormalLike(x) y = Add(x, n)"
#: What is kept is not scaled.
UNPROVEN = "[draw] u = RandomUniformLike(x) b = Less(u, half) m = Cast <to: int = 1> (b) y = Mul(x, m)"


def with_half(body: str) -> onnx.ModelProto:
    return parse(f"g (float[2,3] x) => (float[2,3] y) <float half = {{0.5}}> {{ {body} }}")


def test_what_may_be_dropout_and_is_not_proven_is_named() -> None:
    model = with_half(UNPROVEN)
    with pytest.warns(TrainingLeftWarning, match="1 thing is still in training mode, or may be dropout: 'draw'"):
        got = sd.to_inference(model)
    assert got == model
    with pytest.raises(TrainingLeftError, match="'draw'"):
        sd.to_inference(model, strict=True)


def test_noise_that_is_the_model_is_no_finding(caplog: pytest.LogCaptureFixture) -> None:
    model = with_half(NOISE)
    with caplog.at_level("INFO", "onnx_spatialdrop"):
        assert sd.to_inference(model, strict=True) == model
    assert "'eps' (RandomNormalLike): it is noise of the model" in caplog.text
    sampled = parse("g (float[2,3] x) => (int32[2,1] y) { [s] y = Multinomial(x) }")
    assert [(each.name, each.is_finding) for each in run(sampled).left] == [("s", False)]
    thresholded = with_half("[u] u = RandomUniformLike(x) b = Less(u, x) y = Cast <to: int = 1> (b)")
    assert [each.is_finding for each in run(thresholded).left] == [False]


def test_dropout_of_an_unknown_domain_is_named() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { [d] y = f.BiasDropout(x) }")
    assert [(each.name, each.is_finding) for each in run(model).left] == [("d", True)]


def test_the_command_line_says_what_is_left_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for body, code, said in (
        (UNPROVEN, 3, "left: 'draw'"),
        (NOISE, 0, "noise of the model: 'eps'"),
        ("y = Neg(x)", 0, ""),
    ):
        file = sd.save(with_half(body), tmp_path / "m.onnx")
        assert main(["to-inference", str(file), str(tmp_path / "out.onnx")]) == code
        assert said in capsys.readouterr().err
        assert (tmp_path / "out.onnx").read_bytes() == file.read_bytes()


def test_strict_writes_nothing(tmp_path: Path) -> None:
    file = sd.save(with_half(UNPROVEN), tmp_path / "m.onnx")
    with pytest.raises(TrainingLeftError):
        sd.to_inference(file, tmp_path / "out.onnx", strict=True)
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_without_dropout_is_written_byte_for_byte(tmp_path: Path) -> None:
    content = (
        with_half("y = Neg(x)").SerializeToString() + b"\x32\x00"
    )  # an empty doc_string, which protobuf leaves out
    (tmp_path / "m.onnx").write_bytes(content)
    sd.to_inference(tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == content


def test_nodes_out_of_order_are_sorted_and_that_is_said() -> None:
    model = with_half("d = Dropout(h, half) y = Neg(d) h = Relu(x)")
    with pytest.warns(UserWarning, match="its nodes did not stand in topological order; they were sorted"):
        got = sd.to_inference(model)
    assert operators(got) == ["Relu", "Neg"]
    assert operators(model) == ["Dropout", "Neg", "Relu"]


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
