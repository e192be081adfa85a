"""What insert cannot do is refused in one sentence, and the model is left alone."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from building import NETWORK
from onnx import parser

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.passes.insert import InsertPass

INNER = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,2,4,4] x, bool c) => (float[N,2,4,4] y)
{
  y = If (c) <then_branch = t () => (float[N,2,4,4] a) { a = Exp (x) },
              else_branch = e () => (float[N,2,4,4] b) { b = Neg (x) }>
}
"""
BARE = '<ir_version: 9, opset_import: ["": 20]> net (float[N,C] x) => (float[N,C] y) { y = Relu (x) }'
THROUGH = '<ir_version: 9, opset_import: ["": 20]> net (float[N,2,4] x) => (float[N,2,4] x) { y = Relu (x) }'
NUMBERS = '<ir_version: 9, opset_import: ["": 20]> net (float[N,2,4] x) => (int64[3] y) { y = Shape (x) }'
RANKLESS = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,2,4] x, int64[K] s) => (float[] y) { h = Reshape (x, s) y = ReduceSum <keepdims = 0> (h) }
"""


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            NETWORK,
            {"after": "relu"},
            "value 'relu': the main graph has no such value; the closest names are 'y', 'x', 'w'",
        ),
        (
            NETWORK,
            {"after": "convolution"},
            "value 'convolution': the main graph has no such value; the closest names are 'conv', 'y', 'x'",
        ),
        (
            INNER,
            {"after": "a"},
            "value 'a': is inside a subgraph or a function; insert works on values of the main graph",
        ),
        (NETWORK, {"after": ["h", "h"]}, "value 'h': is named 2 times in after; name each value once"),
        (
            NUMBERS,
            {"after": "y"},
            "value 'y': has type INT64; dropout is for FLOAT16, BFLOAT16, FLOAT, DOUBLE; name another value",
        ),
        (
            BARE,
            {"after": "x"},
            "value 'x': rank 2 has no spatial axes (samples and channels come first); give axes",
        ),
        (
            RANKLESS,
            {"after": "h"},
            "value 'h': the rank of X is unknown, so data_format says nothing; give axes or noise_shape",
        ),
        (
            THROUGH,
            {"after": "x"},
            "value 'x': is a graph output and nothing computes it; put an Identity between the two",
        ),
        (NETWORK, {"after": "h", "rate": 1.5}, "rate is 1.5; it must lie in [0, 1]"),
        (NETWORK, {"after": "h", "axes": [4]}, "value 'h': axis 4 is out of range for rank 4; allowed: [-4, 3]"),
        (
            NETWORK,
            {"after": "h", "seed": 2**64},
            f"seed is {2**64}; it must fit in 64 bits, [-2**63, 2**64)",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_model_left_alone(
    text: str, arguments: dict[str, Any], message: str
) -> None:
    model = ir.from_proto(parser.parse_model(text))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(SpecError) as caught:
        InsertPass(**arguments).call(model)
    assert str(caught.value) == message
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
