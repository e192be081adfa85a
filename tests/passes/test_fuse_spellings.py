"""Ways to write one dropout: how the draw is cut, where the scale stands, how sizes are computed. All built here."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from onnx_spatialdrop import to_inference
from onnx_spatialdrop.graph.ops import OPERATORS, Fact
from onnx_spatialdrop.passes.fuse.policy import run as fuse

HEAD = '<ir_version: 10, opset_import: ["" : 18]> g (float[N,4,5,6] x) => (float[N,4,5,6] y)'
SHAPE = "ones = Constant <value_ints = [1, 1]> ()  size = Shape <end = 2> (x)  shape = Concat <axis = 0> (size, ones)"
DRAW = f"{SHAPE}  t = ConstantOfShape (shape)  u = RandomUniformLike (t)  k = Constant <value_float = 0.75> ()"
PRODUCT = "m = Cast <to = 1> (b)  s = Div (m, k)  y = Mul (x, s)"
SPATIAL = [("spatial", 0.25, (2, 3))]


def model(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} {{ {body} }}")


def found(body: str) -> list[tuple[str, float | None, tuple[int, ...] | None]]:
    return [(record.kind, record.ratio, record.axes) for record in fuse(model(body))[1].fused]


def reason(body: str) -> str:
    _, report = fuse(model(body))
    assert not report.fused
    return report.refused[0].reason


def number(name: str, value: float) -> str:
    return f"{name} = Constant <value_float = {value!r}> ()"


CUTS = {
    "floor(8 u) >= 2": f"{number('e', 8.0)} {number('w', 2.0)} a = Mul (u, e) f = Floor (a) b = GreaterOrEqual (f, w)",
    "ceil(8 u) > 2": f"{number('e', 8.0)} {number('w', 2.0)} a = Mul (u, e) f = Ceil (a) b = Greater (f, w)",
    "round(8 u - 0.5) > 1": f"{number('e', 8.0)} {number('h', 0.5)} {number('w', 1.0)}"
    " a = Mul (u, e) c = Sub (a, h) f = Round (c) b = Greater (f, w)",
    "int(4 u) != 2": f"{number('e', 4.0)} w = Constant <value_int = 2> ()"
    " a = Mul (u, e) i = Cast <to = 7> (a) q = Equal (i, w) b = Not (q)",
    "sign(relu(k - u))": "a = Sub (k, u) r = Relu (a) f = Sign (r) b = Cast <to = 9> (f)",
    "|2 u - 1| < k": f"{number('e', 2.0)} {number('h', 1.0)} a = Mul (u, e) c = Sub (a, h) f = Abs (c) b = Less (f, k)",
    "log u < log k": f"f = Log (u) {number('w', float(np.log(0.75)))} b = Less (f, w)",
    "sqrt u < sqrt k": "f = Sqrt (u) w = Sqrt (k) b = Less (f, w)",
    "max(u, k) <= k": "f = Max (u, k) b = LessOrEqual (f, k)",
    "clip(u, 0.7, 0.8) < k": f"{number('p', 0.7)} {number('q', 0.8)} f = Clip (u, p, q) b = Less (f, k)",
    "u / (1 - u) < 3": f"{number('h', 1.0)} {number('w', 3.0)} a = Sub (h, u) f = Div (u, a) b = Less (f, w)",
    "where(u == k, 1, where(u > k, 0, 1))": f"{number('h', 1.0)} {number('z', 0.0)} e = Equal (u, k) g = Greater (u, k)"
    " i = Where (g, z, h) j = Where (e, h, i) b = Cast <to = 9> (j)",
    "not not": "a = Less (u, k) n = Not (a) b = Not (n)",
    "floor(2 mean(u, k))": f"{number('e', 2.0)} a = Mean (u, k) c = Mul (a, e) f = Floor (c) b = Cast <to = 9> (f)",
    "1 - u < k": f"{number('h', 1.0)} a = Sub (h, u) b = Less (a, k)",
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_draw_may_be_cut_in_many_ways(cut: str) -> None:
    assert found(f"{DRAW} {CUTS[cut]} {PRODUCT}") == SPATIAL


BENDING = [name for name, row in OPERATORS.items() if Fact.ENTRY in row.facts and row.function is not None]
#: Those that u < k and f(u) < f(k) are not the same of: not increasing on [0, 1), or no numbers at all.
NOT_INCREASING = {
    "Ceil",
    "Cos",
    "Floor",
    "IsInf",
    "IsNaN",
    "Neg",
    "Not",
    "Reciprocal",
    "Round",
    "Sign",
    "Acos",
    "Acosh",
}


@pytest.mark.parametrize("bent", sorted(set(BENDING) - NOT_INCREASING - {"Shrink", "ThresholdedRelu"}))
def test_a_draw_is_followed_through_every_function_of_the_table(bent: str) -> None:
    body = f"{DRAW} f = {bent} (u) w = {bent} (k) b = Less (f, w) {PRODUCT}"
    given = model(body)
    given.opset_import[0].version = 24  # Swish is that young
    assert [(record.kind, record.ratio, record.axes) for record in fuse(given)[1].fused] == SPATIAL


THREE = {
    "three values": f"{number('e', 3.0)} a = Mul (u, e) f = Floor (a) s = Div (f, k) y = Mul (x, s)",
    "a slope": f"{number('e', 5.0)} {number('z', 0.0)} {number('h', 1.0)}"
    " a = Mul (u, e) f = Clip (a, z, h) s = Div (f, k) y = Mul (x, s)",
}


@pytest.mark.parametrize("cut", THREE)
def test_more_than_two_values_are_no_mask(cut: str) -> None:
    assert "no threshold has cut" in reason(f"{DRAW} {THREE[cut]}")


def test_a_band_between_two_thresholds_is_left() -> None:
    band = f"{number('p', 0.125)} {number('q', 0.875)} l = Less (u, q) g = Greater (u, p) b = And (l, g)"
    assert reason(f"{DRAW} {band} {PRODUCT}") == "one draw is cut at two thresholds"


MASKED = f"{DRAW} b = Less (u, k) m = Cast <to = 1> (b) "
LATE = {
    "Div behind a Reshape": "p = Mul (x, m) r = Constant <value_ints = [0, 4, 30]> () v = Reshape (p, r)"
    " s = Div (v, k) z = Shape (x) y = Reshape (s, z)",
    "Mul behind Transpose": f"p = Mul (x, m) v = Transpose <perm = [0, 2, 3, 1]> (p) {number('f', 4 / 3)}"
    " s = Mul (f, v) y = Transpose <perm = [0, 3, 1, 2]> (s)",
    "Div behind Relu and Cast": "p = Mul (x, m) r = Relu (p) c = Cast <to = 11> (r)"
    " kd = Constant <value = double {0.75}> () s = Div (c, kd) y = Cast <to = 1> (s)",
    "where Shape reads the product": "p = Mul (x, m) z = Shape (p) r = Relu (p) s = Div (r, k) y = Reshape (s, z)",
}


@pytest.mark.parametrize("late", LATE)
def test_the_scale_may_stand_further_on(late: str) -> None:
    given = model(MASKED + LATE[late])
    fused, report = fuse(given)
    assert [(record.kind, record.ratio, record.axes) for record in report.fused] == SPATIAL
    assert report.fused[0].scale == pytest.approx(4 / 3)
    assert not [node.op_type for node in fused.graph.node if node.op_type in ("Div", "Mul")]
    onnx.checker.check_model(fused, full_check=True)
    x = np.random.default_rng(0).random((3, 4, 5, 6), np.float32)
    clean = onnxruntime.InferenceSession(to_inference(given).SerializeToString())
    np.testing.assert_allclose(clean.run(None, {"x": x})[0], x, rtol=1e-6)


SECOND = "v = RandomUniformLike (t) c = Less (v, k) n = Cast <to = 1> (c) h = Tanh (x) q = Mul (h, n) "


def test_one_scale_may_serve_two_masks() -> None:
    assert found(f"{MASKED} {SECOND} p = Mul (x, m) a = Add (p, q) y = Div (a, k)") == SPATIAL * 2


@pytest.mark.parametrize(
    "shared",
    [
        "p = Mul (x, m) a = Add (p, h) y = Div (a, k)",  # scales something else, too
        "p = Mul (x, m) w = Div (p, k) a = Sigmoid (p) y = Add (w, a)",  # somebody reads the unscaled product
        "p = Mul (x, m) a = Sigmoid (p) y = Div (a, k)",  # no factor gets past a Sigmoid
    ],
)
def test_a_scale_of_something_else_is_none(shared: str) -> None:
    _, report = fuse(model(f"{MASKED} h = Tanh (x) {shared}"))
    assert report.fused == []


def test_a_late_scale_needs_all_that_it_scales_to_be_dropout() -> None:
    returned = f"{MASKED} {SECOND} o = ReduceSum (n) r = Mul (q, o) p = Mul (x, m) a = Add (p, r) y = Div (a, k)"
    assert "multiplied by 1" in reason(returned)


def test_the_difference_of_two_dropouts_of_one_mask_stays_two() -> None:
    assert [axes for _, _, axes in found(f"{MASKED} s = Div (m, k) n = Neg (x) p = Mul (x, s) q = Mul (n, s)"
                                         " y = Add (p, q)")] == [(2, 3)] * 2  # fmt: skip


PRODUCTS = {
    "x, mask": 'd = Squeeze (m, hw) y = Einsum <equation = "nchw,nc->nchw"> (z, d)',
    "mask, x": 'd = Squeeze (m, hw) y = Einsum <equation = "nc, nchw -> nchw"> (d, z)',
    "transposed": 'd = Squeeze (m, hw) e = Transpose (d) y = Einsum <equation = "nchw,cn->nchw"> (z, e)',
    "x - x in Where": "o = Sub (x, x) y = Where (b, z, o)",
    "lerp": f"{number('zero', 0.0)} o = Mul (x, zero) d = Sub (o, z) i = Not (b) j = Cast <to = 1> (i)"
    " e = Mul (d, j) y = Add (z, e)",
    "two signs": "o = Neg (x) w = Div (o, k) p = Mul (w, m) y = Neg (p)",
    "zeros added": f"{number('zero', 0.0)} w = Add (z, zero) p = Mul (w, m) y = Sub (p, zero)",
    "casts of x": "c = Cast <to = 11> (z) f = Cast <to = 11> (m) p = Mul (c, f) y = Cast <to = 1> (p)",
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_x_and_mask_may_meet_in_many_ways(product: str) -> None:
    body = f"{MASKED} z = Div (x, k) hw = Constant <value_ints = [2, 3]> () {PRODUCTS[product]}"
    assert found(body) == SPATIAL
    clean = onnxruntime.InferenceSession(to_inference(model(body)).SerializeToString())
    x = np.random.default_rng(0).random((3, 4, 5, 6), np.float32)
    np.testing.assert_allclose(clean.run(None, {"x": x})[0], x, rtol=1e-6)


def test_an_einsum_that_sums_is_no_dropout() -> None:
    summed = 'd = Squeeze (m, hw) e = Einsum <equation = "nchw,nc->nhw"> (x, d) o = Constant <value_ints = [1]> ()'
    body = f"{MASKED} hw = Constant <value_ints = [2, 3]> () {summed} f = Unsqueeze (e, o) y = Add (x, f)"
    assert "(Einsum) reads it" in reason(body)


N, C = "n = Shape <end = 1> (x)", "c = Shape <start = 1, end = 2> (x)"
SIZES = {
    "N * C": "nc = Mul (n, c)",
    "ReduceProd": "both = Shape <end = 2> (x) nc = ReduceProd <keepdims = 1> (both)",
}
ROWS = {
    "N, C": "o = Constant <value_ints = [1, 1]> () back = Concat <axis = 0> (n, c, o)",
    "-1, C": "less = Constant <value_ints = [-1]> () o = Constant <value_ints = [1, 1]> ()"
    " back = Concat <axis = 0> (less, c, o)",
    "N, -1": "less = Constant <value_ints = [-1]> () o = Constant <value_ints = [1, 1]> ()"
    " back = Concat <axis = 0> (n, less, o)",
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", SIZES)
def test_masks_drawn_flat_are_followed_into_their_rows(size: str, rows: str) -> None:
    draw = (
        f"{N} {C} {SIZES[size]} t = ConstantOfShape (nc) u = RandomUniformLike (t) k = Constant <value_float = 0.75> ()"
    )
    assert found(f"{draw} b = Less (u, k) f = Cast <to = 1> (b) {ROWS[rows]} m = Reshape (f, back)"
                 " s = Div (m, k) y = Mul (x, s)") == SPATIAL  # fmt: skip


SHAPES = {
    "Max and Min": "o = Constant <value_ints = [1, 1]> () a = Max (n) d = Min (c) shape = Concat <axis = 0> (a, d, o)",
    "sequence": "o = Constant <value_ints = [1, 1]> () q = SequenceConstruct (n, c, o)"
    " shape = ConcatFromSequence <axis = 0> (q)",
    "N * C / C": "o = Constant <value_ints = [1, 1]> () nc = Mul (n, c) a = Div (nc, c)"
    " shape = Concat <axis = 0> (a, c, o)",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_may_be_computed(shape: str) -> None:
    draw = f"{N} {C} {SHAPES[shape]} t = ConstantOfShape (shape) u = RandomUniformLike (t)"
    assert found(f"{draw} k = Constant <value_float = 0.75> () b = Less (u, k) {PRODUCT}") == SPATIAL


@pytest.mark.parametrize("keep", [0.5, 0.1, 0.01, 0.001, 0.0001, 0.999, 0.99999])
@pytest.mark.parametrize(("kind", "code"), [("float16", 10), ("bfloat16", 16), ("float", 1), ("double", 11)])
def test_ratios_near_0_and_1_are_read_in_every_type(kind: str, code: int, keep: float) -> None:
    cast = f"m = Cast <to = {code}> (b)  c = Cast <to = {code}> (k)  s = Div (m, c)  y = Mul (x, s)"
    draw = DRAW.replace("0.75", str(keep))
    given = onnx.parser.parse_model(f"{HEAD.replace('float', kind)} {{ {draw}  b = Less (u, k)  {cast} }}")
    (record,) = fuse(given)[1].fused
    assert record.ratio == pytest.approx(1.0 - keep, rel=1e-9)
    assert record.scale == pytest.approx(1.0 / keep, rel=2.0**-7)
    assert [node.op_type for node in to_inference(given).graph.node] == ["Identity"]


def test_a_scale_that_its_type_does_not_hold_is_refused() -> None:
    cast = "m = Cast <to = 10> (b)  c = Cast <to = 10> (k)  s = Div (m, c)  y = Mul (x, s)"
    draw = DRAW.replace("0.75", "0.00001")
    given = onnx.parser.parse_model(f"{HEAD.replace('float', 'float16')} {{ {draw}  b = Less (u, k)  {cast} }}")
    assert "x * inf" in fuse(given)[1].refused[0].reason


def test_a_quantized_mask_is_read_as_what_it_was_rounded_to() -> None:
    numbers = "q = Constant <value = float {0.0052287585}> ()  o = Constant <value = uint8 {0}> ()"  # 4/3 in 255 parts
    mask = f"{DRAW}  b = Less (u, k)  m = Cast <to = 1> (b)  s = Div (m, k)  {numbers}"
    given = f"{mask}  i = QuantizeLinear (s, q, o)  d = DequantizeLinear (i, q, o)  y = Mul (x, d)"
    assert found(given) == SPATIAL
    rough = given.replace("0.0052287585", "0.25")
    assert "kept values are multiplied by 1.25" in reason(rough)


def test_what_quantization_hides_is_refused_with_a_way_out() -> None:
    numbers = "q = Constant <value = float {0.01}> ()  o = Constant <value = uint8 {0}> ()"
    mask = f"{DRAW}  b = Less (u, k)  m = Cast <to = 1> (b)  {numbers}  p = Mul (x, m)"
    hidden = f"{mask}  i = QuantizeLinear (p, q, o)  d = DequantizeLinear (i, q, o)  y = Div (d, k)"
    (record,) = fuse(model(hidden))[1].refused
    assert "kept values are multiplied by 1; dropout of ratio 0.25" in record.reason
    assert record.notes == (
        "the QuantizeLinear node that computes 'i' rounds it: fuse the model first, and quantize then",
    )
    draw = f"{DRAW}  {numbers}  i = QuantizeLinear (u, q, o)  d = DequantizeLinear (i, q, o)"
    assert "fuse the model first, and quantize then" in reason(f"{draw}  b = Less (d, k)  {PRODUCT}")


MASK_OF_A_SCALAR = "k = Constant <value_float = 0.5> ()  b = Less (u, k)  m = Cast <to = 1> (b)  s = Div (m, k)"
SCALARS = {
    "a Dropout": "t = Constant <value = bool {1}> ()  r = Constant <value_float = 0.5> ()  y = Dropout (x, r, t)",
    "spelled out": f"u = RandomUniformLike (x)  {MASK_OF_A_SCALAR}  y = Mul (x, s)",
    "worked out": f"h = ReduceMean <keepdims = 0> (x)  u = RandomUniformLike (h)  {MASK_OF_A_SCALAR}  y = Mul (h, s)",
}


@pytest.mark.parametrize("spelling", SCALARS)
def test_dropout_of_a_scalar_is_left_alone_and_goes_at_inference(spelling: str) -> None:
    head = '<ir_version: 10, opset_import: ["" : 18]> g (float x) => (float y)'
    given = onnx.parser.parse_model(f"{head} {{ {SCALARS[spelling]} }}")
    fused, report = fuse(given, elementwise=True)
    assert [node.op_type for node in fused.graph.node] == [node.op_type for node in given.graph.node]
    assert [record.reason for record in report.refused] == ["x has rank 0, and SpatialDropout takes ranks 1 to 16"]
    assert [node.op_type for node in to_inference(given).graph.node] in (["Identity"], ["ReduceMean"])
