"""Transpositions that dropout kept apart cancel when it goes, through whatever does not care for the order of axes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from onnx_spatialdrop import to_inference

HEAD = '<ir_version: 10, opset_import: ["" : 18]> g (float[N,3,5,6] x) => (OUT)'
IN, OUT = "Transpose <perm = [0, 2, 3, 1]>", "Transpose <perm = [0, 3, 1, 2]>"
MASK = """
    n = Shape <end = 1> (x)  rest = Constant <value_ints = [1, 1, 3]> ()  shape = Concat <axis = 0> (n, rest)
    t = ConstantOfShape (shape)  u = RandomUniformLike (t)  k = Constant <value_float = 0.75> ()
    b = Less (u, k)  m = Cast <to = 1> (b)  s = Div (m, k)
"""


def model(body: str, out: str = "float[N,3,5,6] y") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD.replace('OUT', out)} {{ {MASK} {body} }}")


def run(given: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(given.SerializeToString()).run(None, {"x": x})


def without_dropout(body: str, out: str) -> onnx.ModelProto:
    """Return the model whose mask is all ones: what the inference model has to compute."""
    given = model(body, out)
    (division,) = [node for node in given.graph.node if "s" in node.output]
    division.input[0] = "k"
    return given


BODIES = {
    # name: (nodes, outputs, ops that are left)
    "residual": (
        f"r = Relu (x) v = {IN} (r) d = Mul (v, s) w = {IN} (x) a = Add (d, w) e = Tanh (a) y = {OUT} (e)",
        "float[N,3,5,6] y",
        ["Relu", "Add", "Tanh"],
    ),
    "constants": (
        f"c = Constant <value = float[3] {{1.0, 2.0, 3.0}}> () v = {IN} (x) d = Mul (v, s) a = Add (d, c)"
        f" p = PRelu (a, c) y = {OUT} (p)",
        "float[N,3,5,6] y",
        ["Add", "PRelu"],
    ),
    "concat, pad, slice": (
        "pads = Constant <value_ints = [0, 1, 2, 0, 0, 1, 0, 0]> () one = Constant <value_ints = [1]> ()"
        " axis = Constant <value_ints = [2]> () six = Constant <value_ints = [6]> ()"
        f" v = {IN} (x) d = Mul (v, s) c = Concat <axis = 3> (d, v) p = Pad (c, pads) l = Slice (p, one, six, axis)"
        f" y = {OUT} (l)",
        "float[N,6,7,5] y",
        ["Concat", "Pad", "Slice"],
    ),
    "reductions": (
        f"hw = Constant <value_ints = [1, 2]> () v = {IN} (x) d = Mul (v, s) m1 = ReduceMean <keepdims = 1> (d, hw)"
        " a = Sub (d, m1) y = ReduceMax <keepdims = 0> (a, hw)",
        "float[N,3] y",
        ["ReduceMean", "Sub", "ReduceMax"],
    ),
    "softmax": (
        f"v = {IN} (x) d = Mul (v, s) q = Softmax <axis = -1> (d) y = {OUT} (q)",
        "float[N,3,5,6] y",
        ["Softmax"],
    ),
    "two results": (
        f"v = {IN} (x) d = Mul (v, s) a = Relu (d) y = {OUT} (a) e = Neg (a) z = {OUT} (e)",
        "float[N,3,5,6] y, float[N,3,5,6] z",
        ["Relu", "Neg"],
    ),
    "one border more": (
        f"v = {IN} (x) d = Mul (v, s) w = {IN} (x) a = Add (d, w) z = Relu (a) e = Neg (z) f = {OUT} (e)"
        " y = Conv <kernel_shape = [1, 1]> (f, wide)"
        .replace("y = Conv", "i = Constant <value = float[1] {1.0}> () j = Constant <value_ints = [2, 3, 1, 1]> ()"
                             " wide = Expand (i, j) y = Conv"),
        "float[N,2,5,6] y, float[N,5,6,3] z",
        ["Constant", "Constant", "Expand", "Add", "Relu", "Neg", "Conv", "Transpose"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_dropout_kept_apart_cancels(name: str) -> None:
    body, out, left = BODIES[name]
    clean = to_inference(model(body, out))
    onnx.checker.check_model(clean, full_check=True)
    kept = [node.op_type for node in clean.graph.node]
    assert sorted(op for op in kept if op != "Constant") == sorted(op for op in left if op != "Constant")
    assert [output.name for output in clean.graph.output] == [each.split()[1] for each in out.split(", ")]
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
    for got, expected in zip(run(clean, x), run(without_dropout(body, out), x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


STAY = {
    "nothing to gain": f"v = {IN} (x) d = Mul (v, s) y = Relu (d)",
    "a constant of unknown order": f"v = {IN} (x) d = Mul (v, s) f = Flatten <axis = 3> (d) y = Relu (f)",
}


@pytest.mark.parametrize("name", STAY)
def test_what_would_not_get_shorter_stays(name: str) -> None:
    clean = to_inference(model(STAY[name], "float[A,B,C,D] y" if "Flatten" not in STAY[name] else "float[A,B] y"))
    assert clean.graph.node[0].op_type == "Transpose"


def test_regions_without_dropout_are_left_alone() -> None:
    body = f"v = {IN} (x) a = Sin (v) h = {OUT} (a) r = Cos (h) w = {IN} (r) i = Neg (w) g = {OUT} (i) j = Sin (g)"
    clean = to_inference(model(f"{body} q = {IN} (j) d = Mul (q, s) y = {OUT} (d)"))
    kept = " ".join(node.op_type for node in clean.graph.node)
    assert kept == "Transpose Sin Transpose Cos Transpose Neg Transpose Sin"


def test_a_result_keeps_the_sizes_that_the_graph_declares() -> None:
    given = model(*BODIES["residual"][:2])
    given.graph.value_info.append(onnx.helper.make_tensor_value_info("e", 1, ["unk__1", 5, 6, 3]))
    assert list(to_inference(given).graph.output) == list(given.graph.output)


def test_before_ir_version_4_what_becomes_a_constant_is_listed_as_an_input() -> None:
    given = model(*BODIES["concat, pad, slice"][:2])
    given.ir_version = 3
    clean = to_inference(given)
    assert clean.ir_version == 3
    assert clean.graph.initializer
    onnx.checker.check_model(clean)
