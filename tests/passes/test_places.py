"""insert by kind: after every Relu, before every Gemm, before the last layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main

MODELS = Path(__file__).parents[2] / "models"
NET = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,2,4,4] x) => (float[N,3] y)
<float[3,2,1,1] w = {1., -2., 3., 4., -5., 6.}, float[3,2,1,1] v = {1., 2., 3., 4., 5., 6.},
 float[3,3] u = {1., 2., 3., 1., 2., 3., 1., 2., 3.}, float[3,3] t = {1., 2., 3., 1., 2., 3., 1., 2., 3.}>
{
  conv = Conv (x, w)
  a = Relu (conv)
  p = GlobalAveragePool (a)
  f = Flatten (p)
  d = MatMul (f, u)
  b = Relu (d)
  y = Gemm (b, t)
}
"""


def places(**arguments: object) -> dict[str, tuple[int, ...]]:
    model = onnx.parser.parse_model(NET)
    made = sd.insert(model, rate=0.2, **arguments)
    return {node.node.inputs[0].name: node.axes for node in sd.find(made)}


def test_after_every_relu() -> None:
    assert places(after_op="Relu") == {"a": (2, 3), "b": ()}


def test_before_every_layer_with_weights() -> None:
    assert places(before_op=["Conv", "MatMul", "Gemm"]) == {"x": (2, 3), "f": (), "b": ()}


def test_last_alone_is_before_the_last_layer_and_else_the_last_of_the_others() -> None:
    assert places(last=True) == {"b": ()}
    assert places(after_op="Conv", last=True) == {"conv": (2, 3)}


def test_what_is_said_of_axes_holds() -> None:
    assert places(after_op="Relu", last=True, axes=[0]) == {"b": (0,)}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "give after, or else after_op, before_op or last"),
        ({"after": "a", "last": True}, "give after, or else"),
        ({"after_op": "ReLU"}, "no node of ReLU; it has Relu"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(sd.SpecError, match=text):
        places(**arguments)


def test_the_line_that_monte_carlo_names_makes_a_model_that_it_takes(tmp_path: Path) -> None:
    out = tmp_path / "dropped.onnx"
    assert main(["insert", str(MODELS / "digits_torch_eval_export.onnx"), str(out), "--last", "--rate", "0.2"]) == 0
    images = dict(np.load(MODELS / "digits_torch.npz"))["images"][:3]
    assert sd.MCDropout(out).predict(images).std.max() > 1e-3
