"""Which nodes share a generator, and what is said of the others."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir

from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.passes.masks.plan import MAX_ENTRIES, MAX_TABLE, Group, plan
from onnx_spatialdrop.passes.masks.planned import planned

HEAD = """
<ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
net (INPUTS bool training_mode, int64[steps] step) => (float z)
<bool training_mode = {0}, int64[1] step = {-1} INFO>
{
NODES
  zero = Constant <value_float = 0.0> ()
  z = Identity (zero)
}
"""


def model_of(nodes: str, inputs: str = "", info: str = "") -> ir.Model:
    text = HEAD.replace("INPUTS", inputs).replace("INFO", info).replace("NODES", nodes)
    return ir.from_proto(onnx.parser.parse_model(text))


def drop(x: str, name: str, attributes: str = "axes = [2]", step: str = "step") -> str:
    made = f"onnx_spatialdrop.SpatialDropout <{attributes}, ratio = 0.5, seed = 1>"
    return f"  [{name}] {name}, {name}_mask = {made} ({x}, training_mode, {step})\n"


def drawn(model: ir.Model) -> list[tuple[str, str, str]]:
    return [(" ".join(each.nodes), each.drawn, each.reason) for each in planned(model)]


def test_small_nodes_of_any_sizes_share_a_generator() -> None:
    model = model_of(drop("x", "a") + drop("y", "b"), "float[N,8,H] x, float[N,3,5] y,")
    assert drawn(model) == [("a b", "side by side", "")]


def test_large_and_open_ones_share_it_with_their_like() -> None:
    inputs = f"float[N,L,8] x, float[N,L,8] y, float[N,{MAX_ENTRIES + 1},2] w, float[N,4,2] s,"
    nodes = [drop("x", "a", "axes: ints = []"), drop("w", "big"), drop("y", "b", "axes: ints = []"), drop("s", "small")]
    assert drawn(model_of("".join(nodes), inputs)) == [
        ("a b", "one after the other", ""),
        ("big", "alone", "no other node has its switch, step and sizes"),
        ("small", "alone", "no other node has its switch, step and sizes"),
    ]


def test_a_group_of_small_ones_ends_where_tables_would_grow_large() -> None:
    count = MAX_TABLE // MAX_ENTRIES
    nodes = "".join(drop("x", f"d{place}") for place in range(count + 1))
    groups = drawn(model_of(nodes, f"float[N,{MAX_ENTRIES},3] x,"))
    assert [len(names.split()) for names, _, _ in groups] == [count, 1]


def test_steps_numbers_of_samples_and_generators_divide() -> None:
    nodes = [
        drop("x", "a"), drop("y", "samples"), drop("x", "other", step="other_step"),
        drop("x", "balanced", "axes = [2], strata = 31"), drop("x", "keras", 'axes = [2], rng = "keras_jax"'),
    ]  # fmt: skip
    found = drawn(model_of("".join(nodes), "float[N,4,3] x, float[M,4,3] y, int64[1] other_step,"))
    assert [names for names, _, _ in found] == ["a", "samples", "other", "balanced", "keras"]
    assert found[-1][2] == "rng 'keras_jax' draws by another generator, which is written out node by node"


def test_sizes_that_are_known_only_where_a_node_stands() -> None:
    info = ", float[N,4,3] unknown, float[P,4,3] later, float[P,4,3] same"
    nodes = "  same = Neg (later)\n" + drop("later", "a") + drop("same", "b") + drop("x", "shared", "axes = [0, 2]")
    model = model_of("  later = Compress <axis = 0> (x, keep)\n" + nodes, "float[N,4,3] x, bool[N] keep,", info)
    assert drawn(model) == [("a b", "side by side", ""), ("shared", "alone", "it shares axis 0")]
    (first, _) = groups(model)
    assert first.anchor.name == "a"


def groups(model: ir.Model) -> list[Group]:
    sites = scopes.spatial_dropouts(model)
    known = input_types.known_inputs(model, sites)
    return plan(model, [(site, *each) for site, each in zip(sites, known, strict=True)])


def test_an_unknown_rank() -> None:
    model = model_of(drop("x", "a"), "float[N,4,3] x,")
    model.graph.inputs[0].shape = None
    assert drawn(model) == [("a", "alone", "the rank of its X is unknown")]
