"""What ONNX Runtime does to dropout, stepped into on purpose, and that our forms step over it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from building import dropout_ir, dropout_model
from installed import NEWEST_OPSET

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import spec

LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
needs_native = pytest.mark.skipif(native.missing_reason() is not None, reason="the native library is not built here")


def options(level: str = "ORT_ENABLE_ALL") -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    made.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return made


def plain(model: onnx.ModelProto, level: str = "ORT_ENABLE_ALL") -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), options(level), providers=["CPUExecutionProvider"])


def test_onnxruntime_deletes_training_dropout_and_not_our_node() -> None:
    """EliminateDropout takes Dropout(training_mode=True) out, unless its mask is used."""
    text = (
        '<ir_version: 9, opset_import: ["": 18]> g (float[N, 64] x) => (float[N, 64] y) <float r = {0.5}, bool t = {1}>'
        " { a = Abs(x) d = Dropout(a, r, t) y = Neg(d) }"
    )
    x = np.ones((4, 64), np.float32)
    assert (plain(onnx.parser.parse_model(text)).run(None, {"x": x})[0] == -1).all()  # the trap
    always = dropout_model(shape=("N", 64), axes=(), ratio=0.5, wrap=True, training_mode=True, step=[1], mask=False)
    for kernel in ("auto", "python", "body"):
        y = sd.session(always, kernel).run(None, {"x": x})[0]
        np.testing.assert_array_equal(y, -2.0 * reference.dropout_mask(x.shape, [], 0.5, 7, 1))


def test_where_loses_the_sign_of_zero_and_our_forms_keep_it() -> None:
    """Where makes +0 of a -0 that it selects from its second input; the optimiser swaps inputs of Where(Not(c))."""
    text = (
        '<ir_version: 9, opset_import: ["": 18]> g (float[N] x, bool[N] c, float z) => (float[N] y)'
        " { y = Where(c, x, z) }"
    )
    feeds = {"x": np.array([-0.0], np.float32), "c": np.array([True]), "z": np.zeros((), np.float32)}
    assert not np.signbit(plain(onnx.parser.parse_model(text)).run(None, feeds)[0]).any()  # the trap
    x = np.full((2, 8), -0.0, np.float32)
    model = dropout_model(shape=("N", 8), axes=())
    for level in LEVELS:
        for kernel in ("auto", "python", "body"):
            session = sd.session(model, kernel, sess_options=options(level))
            for training in (True, False):
                y, mask = session.run(None, {"x": x, "training_mode": np.array(training), "step": np.array([1])})
                np.testing.assert_array_equal(np.signbit(y), mask)


def test_a_scale_that_the_graph_computes_loses_its_float16_rounding() -> None:
    """ONNX Runtime removes the pair of casts around the rounded scale; ours hold one that needs no rounding."""
    x = np.arange(1, 65, dtype=np.float16).reshape(1, 64)
    text = (
        '<ir_version: 9, opset_import: ["": 18]> g (float16[N, 64] x, double d) => (float16[N, 64] y)'
        " { f = Cast <to = 10> (d) y = Mul(x, f) }"
    )
    feeds = {"x": x, "d": np.array(1 / 0.7)}
    assert (plain(onnx.parser.parse_model(text)).run(None, feeds)[0] != x * np.float16(1 / 0.7)).any()  # the trap
    for percent in range(1, 100, 7):
        model = dropout_model(dtype="float16", shape=("N", 64), axes=(), scale=0.0, ratio=percent / 100)
        expected, _ = reference.spatial_dropout(x, [], percent / 100, 7, 1, scale=0.0)
        for kernel in ("auto", "python", "body"):
            run = {"x": x, "training_mode": np.array(True), "step": np.array([1])}
            np.testing.assert_array_equal(sd.session(model, kernel).run(None, run)[0], expected)


@needs_native
@pytest.mark.parametrize("level", LEVELS)
def test_a_registered_kernel_wins_over_the_body_with_the_same_bits(level: str) -> None:
    """Only the kernel counts fresh draws from 0, which tells who ran."""
    model = sd.attach(dropout_model(shape=("N", 100), axes=(), wrap=True))
    x = np.ones((2, 100), np.float32)
    fresh = {"x": x, "training_mode": np.array(True)}
    registered = options(level)
    sd.register(registered)
    with_kernel = onnxruntime.InferenceSession(model.SerializeToString(), registered)
    without = plain(model, level)
    np.testing.assert_array_equal(with_kernel.run(["mask"], fresh)[0], reference.dropout_mask(x.shape, [], 0.3, 7, 0))
    assert (without.run(["mask"], fresh)[0] != reference.dropout_mask(x.shape, [], 0.3, 7, 0)).any()
    drawn = fresh | {"step": np.array([5])}
    for got, expected in zip(with_kernel.run(None, drawn), without.run(None, drawn), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_call_that_lists_one_output_fails_so_nodes_list_two(tmp_path: Path) -> None:
    """ONNX Runtime says "output index 1 is out of range" or ends the process; an empty name keeps the place."""
    model = sd.attach(dropout_model(wrap=True, mask=False))
    node = next(n for n in model.graph.node if n.op_type == "SpatialDropout")
    node.output[1] = ""
    plain(model)
    del node.output[1]
    onnx.save(model, tmp_path / "one.onnx")
    load = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    done = subprocess.run([sys.executable, "-c", load, str(tmp_path / "one.onnx")], capture_output=True, check=False)
    assert done.returncode != 0


def test_a_model_at_a_newer_opset_gets_a_body_at_that_opset() -> None:
    for opset in (18, min(22, NEWEST_OPSET), min(24, onnx.defs.onnx_opset_version(), NEWEST_OPSET)):
        attached = sd.attach(dropout_model(opset=opset))
        assert {o.version for f in attached.functions for o in f.opset_import if not o.domain} == {opset}
        plain(attached)


def test_the_version_converter_drops_functions_so_attach_comes_last() -> None:
    attached = sd.attach(dropout_model())
    converted = onnx.version_converter.convert_version(attached, 21)
    assert not converted.functions  # the trap
    again = sd.attach(converted)
    assert [function.name for function in again.functions] == ["SpatialDropout"]
    plain(again)


def nodes_in(place: str) -> onnx.ModelProto:
    """Return a model whose SpatialDropout node stands in an If branch, a Loop body, or a function in a function."""
    node = (
        "onnx_spatialdrop.SpatialDropout <axes: ints = [1], ratio: float = 0.5, seed: int = 7, scale: float = 2.0,"
        ' rng: string = "philox">'
    )
    head = '<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1, "f": 1]> g'
    inputs = "(float[N, 8] x, bool training_mode, int64[1] step)"
    texts = {
        "if": f"""{head} {inputs} => (float[N, 8] y) {{ a = Abs(x)
            b = If (training_mode) <then_branch = t () => (float[N, 8] u) {{ u, m = {node} (a, training_mode, step) }},
            else_branch = e () => (float[N, 8] v) {{ v = Identity(a) }}> y = Neg(b) }}""",
        "loop": f"""{head} {inputs} => (float[N, 8] y) {{ a = Abs(x) n = Constant <value_int: int = 1> ()
            yes = Constant <value = bool {{1}}> ()
            b = Loop (n, yes, a) <body = l (int64 i, bool c, float[N, 8] h) => (bool k, float[N, 8] u)
            {{ k = Identity(c) u, m = {node} (h, training_mode, step) }}> y = Neg(b) }}""",
        "function": f"""{head} {inputs} => (float[N, 8] y) {{ a = Abs(x)
            b = f.outer(a, training_mode, step) y = Neg(b) }}
            <domain: "f", opset_import: ["": 18, "onnx_spatialdrop": 1, "f": 1]> outer (a, t, s) => (b)
            {{ b = f.inner(a, t, s) }}
            <domain: "f", opset_import: ["": 18, "onnx_spatialdrop": 1]> inner (a, t, s) => (b)
            {{ b, m = {node} (a, t, s) }}""",
    }
    return onnx.parser.parse_model(texts[place])


@pytest.mark.parametrize("kernel", ["auto", "python", "body"])
@pytest.mark.parametrize("place", ["if", "loop", "function"])
def test_nodes_in_subgraphs_and_functions_run_with_every_kernel(place: str, kernel: str) -> None:
    model = nodes_in(place)
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    session = sd.session(model, kernel)
    y = session.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([3])})[0]
    np.testing.assert_array_equal(y, -reference.spatial_dropout(np.abs(x), [1], 0.5, 7, 3)[0])
    y = session.run(None, {"x": x, "training_mode": np.array(False), "step": np.array([3])})[0]
    np.testing.assert_array_equal(y, -np.abs(x))


@pytest.mark.parametrize("kernel", ["auto", "python"])
def test_bfloat16_runs(kernel: str) -> None:
    if kernel == "auto" and native.missing_reason() is not None:
        pytest.skip("the native library is not built here")
    model = dropout_ir(dtype="bfloat16", shape=("N", 6), axes=(), mask=False)
    graph = model.graph
    x, y = graph.inputs[0], graph.outputs[0]
    x.type = ir.TensorType(ir.DataType.FLOAT)
    narrow, wide = ir.node("Cast", [x], {"to": ir.DataType.BFLOAT16}), ir.node("Cast", [y], {"to": ir.DataType.FLOAT})
    narrow.outputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
    graph[0].replace_input_with(0, narrow.outputs[0])
    graph.insert_before(graph[0], narrow)
    graph.append(wide)
    wide.outputs[0].name, wide.outputs[0].type, wide.outputs[0].shape = "z", x.type, y.shape
    graph.outputs[0] = wide.outputs[0]
    sample = np.random.default_rng(0).normal(size=(50, 6)).astype(spec.DTYPES["bfloat16"])
    feeds = {"x": sample.astype(np.float32), "training_mode": np.array(True), "step": np.array([4])}
    got = sd.session(model, kernel).run(None, feeds)[0]
    expected, _ = reference.spatial_dropout(sample, [], 0.3, 7, 4, scale=spec.explicit_scale(0.3, sample.dtype))
    np.testing.assert_array_equal(got, expected.astype(np.float32))
