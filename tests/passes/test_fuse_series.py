"""Dropouts in a row and side by side: what belongs to which, and that one never stays behind in another's X."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from onnx_spatialdrop import to_inference
from onnx_spatialdrop.passes.fuse.policy import run as fuse

X = np.random.default_rng(0).uniform(0.5, 2.0, (2, 4, 3, 3)).astype(np.float32)

#: Where the scale stands: x, the result, the number of the mask.
SPELLINGS = {
    "product, Mul": "q{n} = Mul ({x}, m{n})  {y} = Mul (q{n}, s{n})",
    "product, Div": "q{n} = Mul ({x}, m{n})  {y} = Div (q{n}, k{n})",
    "mask, Mul": "q{n} = Mul (m{n}, s{n})  {y} = Mul ({x}, q{n})",
    "mask, Div": "q{n} = Div (m{n}, k{n})  {y} = Mul ({x}, q{n})",
    "x": "q{n} = Mul ({x}, s{n})  {y} = Mul (q{n}, m{n})",
    "behind a view": "q{n} = Mul ({x}, m{n})  r{n} = Unsqueeze ({x}, zero)  v{n} = Unsqueeze (q{n}, zero)"
    "  w{n} = Div (v{n}, k{n})  {y} = Squeeze (w{n}, zero)",
}
#: What stands between: nodes, and the shape of the second mask.
BETWEEN = {
    "nothing": ("z = Identity (a)", (2, 4, 1, 1)),
    "Identity": ("z = Identity (a)", (2, 4, 1, 1)),
    "Reshape": ("to = Constant <value_ints = [2, 4, 9]> ()  z = Reshape (a, to)", (2, 4, 1)),
    "Transpose": ("z = Transpose <perm = [0, 2, 3, 1]> (a)", (2, 1, 1, 4)),
    "Unsqueeze": ("z = Unsqueeze (a, zero)", (1, 2, 4, 1, 1)),
    "Cast": ("z = Cast <to = 1> (a)", (2, 4, 1, 1)),
    "two views": ("b = Transpose <perm = [0, 2, 3, 1]> (a)  z = Unsqueeze (b, zero)", (1, 2, 1, 1, 4)),
    "Relu": ("z = Relu (a)", (2, 4, 1, 1)),
    "MaxPool": ("z = MaxPool <kernel_shape = [2, 2]> (a)", (2, 4, 1, 1)),
}


def mask(n: int, shape: tuple[int, ...], keep: float) -> str:
    numbers = f"k{n} = Constant <value_float = {keep}> ()  s{n} = Constant <value_float = {1.0 / keep!r}> ()"
    draw = f"u{n} = RandomUniform <shape = {list(shape)}> ()  b{n} = Less (u{n}, k{n})  m{n} = Cast <to = 1> (b{n})"
    return f"{numbers}  {draw}"


def model(body: str) -> onnx.ModelProto:
    head = '<ir_version: 10, opset_import: ["" : 18]> g (float[2,4,3,3] x) => (float[M1] y)'
    zero = "zero = Constant <value_ints = [0]> ()"
    given = onnx.parser.parse_model(f"{head} {{ {zero}  {body} }}")
    given.graph.output[0].type.tensor_type.ClearField("shape")
    return given


def run(given: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(given.SerializeToString(), options).run(None, {"x": X})[0]


def in_a_row(first: str, second: str, between: str, keeps: tuple[float, float]) -> tuple[str, str]:
    """Return two dropouts in a row, and the same without them."""
    nodes, shape = BETWEEN[between]
    start, end = "h = Abs (x)", "y = Sigmoid (w)"
    masks = f"{mask(1, (2, 4, 1, 1), keeps[0])}  {mask(2, shape, keeps[1])}"
    one = SPELLINGS[first].format(n=1, x="h", y="a")
    two = SPELLINGS[second].format(n=2, x="a" if between == "nothing" else "z", y="w")
    middle = "" if between == "nothing" else nodes
    return (
        f"{start}  {masks}  {one}  {middle}  {two}  {end}",
        f"{start}  a = Identity (h)  {nodes}  w = Identity (z)  {end}",
    )


@pytest.mark.parametrize("between", BETWEEN)
def test_dropouts_in_a_row_all_go(between: str) -> None:
    for first, second, keeps in itertools.product(SPELLINGS, SPELLINGS, [(0.5, 0.5), (0.75, 0.5)]):
        body, plain = in_a_row(first, second, between, keeps)
        _, report = fuse(model(body))
        assert [record.reason for record in report.refused] == [], (first, second, keeps)
        clean = to_inference(model(body))
        np.testing.assert_allclose(run(clean), run(model(plain)), rtol=1e-6, err_msg=f"{first}, {second}, {keeps}")
        assert "RandomUniform" not in {node.op_type for node in clean.graph.node}


def test_a_row_of_equal_dropouts_behind_views_shares_its_factors_out() -> None:
    names = [f"h{n}" for n in range(9)]
    rows = [
        f"{mask(n, (2, 4, 1, 1), 0.5)}  {SPELLINGS['product, Mul'].format(n=n, x=names[n], y=f'c{n}')}"
        f"  {names[n + 1]} = Identity (c{n})"
        for n in range(8)
    ]
    given = model(f"h0 = Abs (x)  {'  '.join(rows)}  y = Neg (h8)")
    assert len(fuse(given)[1].fused) == 8
    np.testing.assert_array_equal(run(to_inference(given)), -X)


def test_a_scale_between_a_bare_mask_and_a_dropout_is_used_once() -> None:
    bare = f"{mask(1, (2, 4, 1, 1), 0.5)}  q = Mul (x, m1)  v = Identity (q)"
    _, report = fuse(model(f"{bare}  {mask(2, (2, 4, 1, 1), 0.5)}  c = Mul (v, s2)  y = Mul (c, m2)"))
    assert (len(report.fused), len(report.refused)) == (1, 1)


def test_a_scale_of_two_dropouts_stays_while_one_of_them_does() -> None:
    """On request element-wise dropout becomes a node, too; without, the spatial one cannot either."""
    masks = f"{mask(1, (2, 4, 1, 1), 0.5)}  {mask(2, (2, 4, 3, 3), 0.5)}"
    given = model(f"{masks}  h = Neg (x)  p = Mul (x, m1)  q = Mul (h, m2)  s = Add (p, q)  y = Div (s, k1)")
    fused, report = fuse(given)
    assert report.fused == []
    assert [node.op_type for node in fused.graph.node] == [node.op_type for node in given.graph.node]
    assert "its scale is also that of a dropout that stays as it is" in [record.reason for record in report.refused]
    assert len(fuse(given, elementwise=True)[1].fused) == 2


def test_a_scale_behind_a_cast_to_whole_numbers_is_none() -> None:
    given = model(
        f"{mask(1, (2, 4, 1, 1), 0.5)}  q = Mul (x, m1)  i = Cast <to = 7> (q)  t = Add (i, i)  y = Cast <to = 1> (t)"
    )
    assert fuse(given)[1].fused == []
    two = "two = Constant <value_int = 2> ()"
    given = model(f"{mask(1, (2, 4, 1, 1), 0.5)} {two} q = Mul (x, m1)  i = Cast <to = 7> (q)  y = Mul (i, two)")
    assert fuse(given)[1].fused == []
