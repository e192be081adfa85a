"""Shapes follow from a model's inputs, through Loops too; what a file says besides counts where nothing opposes it."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from onnx_spatialdrop.graph.inferred import Inferred

START = "t = Constant <value_int = 3> ()  on = Constant <value = bool {1}> ()"


def shapes(nodes: str, x: str = "float[N,4,3] x", info: str = "") -> dict[str, str]:
    """Return the shape of each value of the main graph and of graphs in it."""
    said = f"<{info}>" if info else ""
    model = ir.from_proto(
        onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : 18, "own" : 1]> g ({x}) => (float[A,B] y) {said} {{ {nodes} }}'
        )
    )
    inferred = Inferred(model)
    return {value.name or "": str(inferred(value)) for node in model.graph.all_nodes() for value in node.outputs}


def loop(body: str, state: str = "float s", start: str = "x") -> str:
    graph = f"<body = b (int64 i, bool go, {state}) => (bool same, float z) {{ same = Identity (go)  {body} }}>"
    return f"{START}  r = Loop (t, on, {start}) {graph}  y = Relu (r)"


LOOPS = {
    # what the body computes, what it says of the state: what the state is known to be
    "each turn keeps the shape": ("z = Relu (s)", "float s", "[N,4,3]"),
    "one axis grows": ("z = Concat <axis = 1> (s, s)", "float s", "[N,None,3]"),
    "one axis grows, whatever is said": ("z = Concat <axis = 1> (s, s)", "float[N,4,3] s", "[N,None,3]"),
    "the rank grows": ("k = Constant <value_ints = [0]> ()  z = Unsqueeze (s, k)", "float[N,4,3] s", "None"),
    "onnx infers nothing, and the file says what it starts with": ("z = own.Unknown (s)", "float[N,4,3] s", "[N,4,3]"),
    "onnx infers nothing, and the file says another batch": ("z = own.Unknown (s)", "float[1,4,3] s", "[None,4,3]"),
    "a Loop in the Loop": (f"{loop('z = Relu (s)', start='s0')}  z = Neg (r)", "float s0", "[N,4,3]"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_states_of_loops(name: str) -> None:
    body, state, expected = LOOPS[name]
    assert shapes(loop(body, state))["r"] == expected


def test_a_loop_after_another_is_told_what_that_one_says() -> None:
    views = "k = Constant <value_ints = [0, 4, -1]> ()  v = Reshape (r, k)"
    second = (
        "w = Loop (t, on, v) <body = c (int64 j, bool g, float q) => (bool h, float p)"
        " { h = Identity (g)  p = Neg (q) }>"
    )
    assert shapes(f"{loop('z = Relu (s)')}  {views}  {second}")["w"] == "[N,4,3]"


def test_what_a_file_says_of_sizes_counts_where_all_inputs_are_numbers_and_nothing_opposes_it() -> None:
    nodes = "a = own.Unknown (x)  b = Relu (x)  y = Relu (b)"
    static, told = "float[2,4] x", "float[2,9] a, float[2,4] b"
    found = [
        shapes(nodes, x, info)["a"]
        for x, info in ((static, told), ("float[N,4] x", told), (static, told.replace("[2,4] b", "[1,4] b")))
    ]
    assert found == ["[2,9]", "[None,None]", "[None,None]"]
