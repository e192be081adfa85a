"""What generated models once made fuse get wrong: one case a class, each built here. Files live in test_fuse.py."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_spatialdrop import to_inference
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.fuse.policy import run as fuse

SHAPE = "ones = Constant <value_ints = [1, 1]> ()  size = Shape <end = 2> (x)  shape = Concat <axis = 0> (size, ones)"
DRAW = "t = ConstantOfShape (shape)  u = RandomUniformLike (t)"
MASK = "k = Constant <value_float = 0.75> ()  b = Less (u, k)  m = Cast <to = 1> (b)"
TAIL = f"{MASK}  s = Div (m, k)  y = Mul (x, s)"


def model(body: str, x: str = "float[N,4,5,6] x", y: str = "float[N,4,5,6] y", functions: str = "") -> onnx.ModelProto:
    domains = ', "own" : 1' if functions else ""
    text = f'<ir_version: 10, opset_import: ["" : 18{domains}]> g ({x}) => ({y}) {{ {body} }} {functions}'
    return onnx.parser.parse_model(text)


def found(body: str, **kwargs: str) -> list[tuple[str, float | None, tuple[int, ...] | None]]:
    return [(record.kind, record.ratio, record.axes) for record in fuse(model(body, **kwargs))[1].fused]


def reason(body: str, **kwargs: str) -> str:
    _, report = fuse(model(body, **kwargs))
    assert not report.fused
    return report.refused[0].reason


def test_the_callers_constants_keep_their_names() -> None:
    given = model(f"{SHAPE}  {DRAW}  {TAIL}".replace("<value_float = 0.75>", "<value = float {0.75}>"))
    before = onnx.ModelProto()
    before.CopyFrom(given)
    fuse(given)
    assert given == before


SHAPES = {
    "Where": "c = Constant <value = bool[4] {1, 1, 0, 0}> ()  o = Constant <value_ints = [1, 1, 1, 1]> ()"
    "  size = Shape (x)  shape = Where (c, size, o)",
    "Mul and Add": "a = Constant <value_ints = [1, 1, 0, 0]> ()  o = Constant <value_ints = [0, 0, 1, 1]> ()"
    "  size = Shape (x)  z = Mul (size, a)  shape = Add (z, o)",
    "Range": "a = Constant <value_int = 0> ()  e = Constant <value_int = 2> ()  d = Constant <value_int = 1> ()"
    "  size = Shape (x)  i = Range (a, e, d)  nc = Gather (size, i)  o = Constant <value_ints = [1, 1]> ()"
    "  shape = Concat <axis = 0> (nc, o)",
    "Split": "p = Constant <value_ints = [2, 2]> ()  o = Constant <value_ints = [1, 1]> ()  size = Shape (x)"
    "  nc, hw = Split (size, p)  shape = Concat <axis = 0> (nc, o)",
    "Pad": "p = Constant <value_ints = [0, 2]> ()  f = Constant <value_int = 1> ()  size = Shape <end = 2> (x)"
    "  shape = Pad (size, p, f)",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_masks_are_followed_through(shape: str) -> None:
    assert found(f"{SHAPES[shape]}  {DRAW}  {TAIL}") == [("spatial", 0.25, (2, 3))]


def test_an_expansion_that_keeps_some_sizes_is_followed() -> None:
    keep = "n1 = Constant <value_ints = [-1, -1]> ()  hw = Shape <start = 2> (x)  r = Concat <axis = 0> (n1, hw)"
    ones = "rs = Shape (r)  o4 = ConstantOfShape <value = int64[1] {1}> (rs)  m1 = Constant <value_int = -1> ()"
    sizes = "n4 = Mul (o4, m1)  same = Equal (r, n4)  to = Where (same, o4, r)"
    expanded = f"{MASK}  s = Div (m, k)  {keep}  {ones}  {sizes}  e = Expand (s, to)  y = Mul (x, e)"
    assert found(f"{SHAPE}  {DRAW}  {expanded}") == [("spatial", 0.25, (2, 3))]


def test_one_entry_taken_of_an_axis_is_a_draw_of_its_own() -> None:
    taken = "z = Constant <value_int = 0> ()  w = Gather <axis = 3> (v, z)  h = Gather <axis = 2> (w, z)"
    back = "a = Constant <value_ints = [2, 3]> ()  u = Unsqueeze (h, a)"
    assert found(f"v = RandomUniformLike (x)  {taken}  {back}  {TAIL}") == [("spatial", 0.25, (2, 3))]


def test_copies_of_entries_along_axes_of_one_are_no_new_entries() -> None:
    draw = "u = RandomUniformLike (w)  r = Constant <value_ints = [1, 1, 5, 6]> ()"
    body = f"{draw}  {MASK}  s = Div (m, k)  t = Tile (s, r)  y = Mul (x, t)"
    given = model(body, x="float[3,4,5,6] x, float[3,4,1,1] w", y="float[3,4,5,6] y")
    assert [record.axes for record in fuse(given)[1].fused] == [(2, 3)]


def test_a_template_may_be_computed() -> None:
    template = "o = ConstantOfShape <value = float[1] {1.0}> (shape)  h = Constant <value_float = 0.75> ()"
    body = f"{SHAPE}  {template}  t = Mul (o, h)  u = RandomUniformLike (t)  {TAIL}"
    assert found(body) == [("spatial", 0.25, (2, 3))]


def test_sizes_are_followed_through_transpositions() -> None:
    shape = "size = Shape <end = 1> (x)  rest = Constant <value_ints = [1, 1, 4]> ()"
    draw = f"{shape}  shape = Concat <axis = 0> (size, rest)  {DRAW}  {MASK}  s = Div (m, k)"
    body = f"p = Relu (x)  v = Transpose <perm = [0, 2, 3, 1]> (p)  {draw}  y = Mul (v, s)"
    assert found(body, x="float[?,4,5,6] x", y="float[?,5,6,4] y") == [("spatial", 0.25, (1, 2))]


def test_a_slice_of_everything_is_nothing() -> None:
    bounds = "z = Constant <value_ints = [0, 0]> ()  e = Constant <value_ints = [1000000000, 1000000000]> ()"
    assert found(
        f"{SHAPE}  t = ConstantOfShape (shape)  v = RandomUniformLike (t)  {bounds}  u = Slice (v, z, e)  {TAIL}"
    )


def test_a_lower_bound_alone_clips() -> None:
    clipped = "p = Constant <value_float = 0.25> ()  d = Sub (u, p)  g = Sign (d)  z = Constant <value_float = 0.0> ()"
    end = "m = Clip (g, z)  k = Constant <value_float = 0.75> ()  s = Div (m, k)  y = Mul (x, s)"
    assert found(f"{SHAPE}  {DRAW}  {clipped}  {end}") == [("spatial", 0.25, (2, 3))]


def test_zeros_like_the_activation_are_zeros() -> None:
    scale = "q = Constant <value_float = 1.3333334> ()  z = Constant <value_float = 0.0> ()  xs = Mul (x, q)"
    select = (
        "n = Not (b)  d = Cast <to = 1> (n)  zs = Mul (xs, z)  one = Mul (m, xs)  two = Mul (d, zs)  y = Add (one, two)"
    )
    body = f"{SHAPE}  {DRAW}  {MASK}  {scale}  {select}"
    assert found(body) == [("spatial", 0.25, (2, 3))]
    assert [node.op_type for node in to_inference(model(body)).graph.node] == ["Identity"]


def drop(x: str, y: str, n: int, *, scaled: bool) -> str:
    """Return a dropout of ``x`` that scales after its mask, with names of its own."""
    shape = f"o{n} = Constant <value_ints = [1, 1]> ()  n{n} = Shape <end = 2> ({x})"
    shape += f"  s{n} = Concat <axis = 0> (n{n}, o{n})"
    draw = f"t{n} = ConstantOfShape (s{n})  u{n} = RandomUniformLike (t{n})  k{n} = Constant <value_float = 0.75> ()"
    mask = f"b{n} = Less (u{n}, k{n})  m{n} = Cast <to = 1> (b{n})"
    end = f"d{n} = Mul ({x}, m{n})  {y} = Div (d{n}, k{n})" if scaled else f"{y} = Mul ({x}, m{n})"
    return f"{shape}  {draw}  {mask}  {end}"


def test_dropouts_in_series_each_have_their_own_factor() -> None:
    body = drop("x", "h", 1, scaled=True) + "  " + drop("h", "y", 2, scaled=True)
    fused, report = fuse(model(body))
    onnx.checker.check_model(fused)
    assert len(report.fused) == 2
    assert [node.op_type for node in to_inference(model(body)).graph.node] == ["Identity"]


def test_a_factor_is_claimed_once() -> None:
    _, report = fuse(model(drop("x", "h", 1, scaled=True) + "  " + drop("h", "y", 2, scaled=False)))
    assert len(report.fused) == 1
    assert [record.reason for record in report.refused] == [
        "kept values are multiplied by 1; dropout of ratio 0.25 multiplies them by 1.33333"
    ]


def test_a_mask_and_its_opposite_are_not_tied() -> None:
    half = "k = Constant <value_float = 0.5> ()  b = Less (u, k)  m = Cast <to = 1> (b)  s = Div (m, k)"
    other = "n = Not (b)  d = Cast <to = 1> (n)  e = Div (d, k)  r = Relu (x)"
    body = f"{SHAPE}  {DRAW}  {half}  {other}  one = Mul (x, s)  two = Mul (r, e)  y = Add (one, two)"
    assert reason(body) == "one draw makes a mask and its opposite, which one seed cannot tie"


def test_one_draw_cut_at_two_places_keeps_one_seed() -> None:
    """Optimisers merge equal draws: onnxsim and onnxslim make one of all layers on one shape."""
    second = "j = Constant <value_float = 0.5> ()  c = Less (u, j)  d = Cast <to = 1> (c)  e = Div (d, j)  r = Relu (h)"
    first = TAIL.replace("y = Mul", "h = Mul")
    fused, report = fuse(model(f"{SHAPE}  {DRAW}  {first}  {second}  y = Mul (r, e)"))
    assert sorted(record.ratio or 0 for record in report.fused) == [0.25, 0.5]
    seeds = {op.read(node).seed for node in ir.from_proto(fused).graph if node.op_type == "SpatialDropout"}
    assert len(seeds) == 1


def test_a_mask_that_repeats_a_slice_of_one_is_no_dropout() -> None:
    bounds = "z = Constant <value_ints = [0]> ()  e = Constant <value_ints = [1]> ()  w = Slice (x, z, e, z)"
    sizes = "three = Constant <value_ints = [3]> ()  c = Shape <start = 1, end = 2> (x)"
    shape = f"{sizes}  ones = Constant <value_ints = [1, 1]> ()  shape = Concat <axis = 0> (three, c, ones)"
    body = f"{bounds}  {shape}  {DRAW}  {TAIL.replace('Mul (x', 'Mul (w')}"
    assert reason(body, y="float[M,4,5,6] y") == "along axis 0 the mask repeats x, which has size 1 there"


def test_a_draw_that_depends_on_a_parameter_is_what_its_call_says() -> None:
    draw = "{ u = RandomUniformLike <low: float = @low> (t) }"
    function = f'<domain: "own", opset_import: ["" : 18]> draw <low> (t) => (u) {draw}'
    body = f"{SHAPE}  t = ConstantOfShape (shape)  u = own.draw <low = 0.0> (t)  {TAIL}"
    assert found(body, functions=function) == [("spatial", 0.25, (2, 3))]
    assert "RandomUniformLike" in reason(body.replace("0.0", "0.5"), functions=function)


def frozen(mask: np.ndarray) -> list[str]:
    given = model("y = Mul (x, w)", x="float[8,8,5,6] x, float[8,8,5,6] w", y="float[8,8,5,6] y")
    del given.graph.input[1]
    given.graph.initializer.append(onnx.numpy_helper.from_array(mask.astype(np.float32), "w"))
    return [record.kind for record in fuse(given)[1].refused]


def drawn(*shape: int) -> np.ndarray:
    return np.where(np.random.default_rng(0).random(shape) < 0.5, 0.0, 2.0)


@pytest.mark.parametrize(
    "mask", [drawn(8, 8, 1, 1), np.broadcast_to(drawn(8, 8, 1, 1), (8, 8, 5, 6)), drawn(1, 1, 5, 6)], ids=str
)
def test_frozen_masks_are_named_also_where_they_are_spread(mask: np.ndarray) -> None:
    assert frozen(mask) == ["frozen"]


LAID_OUT = {
    "triangle": 2.0 * np.tril(np.ones((5, 6)))[None, None],
    "checkerboard": 2.0 * (np.indices((5, 6)).sum(axis=0) % 2)[None, None],
    "one-hot": 6.0 * np.eye(5, 6)[None, None],
    "halves": np.repeat([0.0, 2.0], 4)[None, :, None, None],
    "few": np.array([0.0, 2.0, 2.0, 0.0, 0.0, 2.0])[None, None, None],
}


@pytest.mark.parametrize("table", LAID_OUT)
def test_tables_that_somebody_laid_out_are_no_frozen_masks(table: str) -> None:
    assert frozen(LAID_OUT[table]) == []


def with_mask(body: str, **inputs: np.ndarray) -> list[str]:
    shapes = {name: ",".join(map(str, array.shape)) for name, array in inputs.items()}
    given = model(body, x="float[8,8,5,6] x, " + ", ".join(f"float[{shapes[name]}] {name}" for name in inputs))
    del given.graph.input[1:]
    for name, array in inputs.items():
        given.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return [record.kind for record in fuse(given)[1].refused]


BINARY = drawn(8, 8, 1, 1) / 2


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("a = Mul (x, w)  y = Add (a, a)", []),  # a table of 0 and 1 without a scale
        ("a = Mul (x, w)  k = Constant <value_float = 2.0> ()  y = Mul (a, k)", ["frozen"]),
        ("a = Mul (x, w)  k = Constant <value_float = 2.0> ()  b = Mul (a, k)  y = Add (a, b)", []),
        ("a = Mul (x, w)  k = Constant <value_float = 2.0> ()  b = Mul (a, k)  y = Add (b, w)", []),
        ("a = Mul (v, w)  k = Constant <value_float = 2.0> ()  b = Mul (a, k)  y = Add (x, b)", []),  # pruned weights
    ],
)
def test_a_table_of_0_and_1_is_a_frozen_mask_only_with_its_scale(body: str, kinds: list[str]) -> None:
    weights = {"v": np.random.default_rng(1).random((8, 8, 1, 1))} if "v, w" in body else {}
    assert with_mask(body, w=BINARY, **weights) == kinds


def test_each_call_of_a_function_draws_for_itself() -> None:
    function = f'<domain: "own", opset_import: ["" : 18]> drop (x) => (y) {{ {SHAPE}  {DRAW}  {TAIL} }}'
    fused, report = fuse(model("h = own.drop (x)  r = Relu (h)  y = own.drop (r)", functions=function))
    onnx.checker.check_model(fused)
    assert [record.axes for record in report.fused] == [(2, 3)] * 2
    seeds = [op.read(node).seed for node in ir.from_proto(fused).graph if node.op_type == "SpatialDropout"]
    assert len(set(seeds)) == len(seeds) == 2


def test_a_mask_may_be_passed_to_the_function_that_multiplies() -> None:
    function = '<domain: "own", opset_import: ["" : 18]> apply (a, s) => (y) { y = Mul (a, s) }'
    given = f"{SHAPE}  {DRAW}  {MASK}  f = Div (m, k)  y = own.apply (x, f)"
    assert [record.axes for record in fuse(model(given, functions=function))[1].fused] == [(2, 3)]
    wrong = given.replace("f = Div (m, k)", "f = Mul (m, k)")
    fused, report = fuse(model(wrong, functions=function))
    assert report.fused == []
    assert [node.op_type for node in fused.graph.node][-1] == "apply"
