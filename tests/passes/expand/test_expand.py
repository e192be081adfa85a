"""What the pass does to the model around a node: names, switches, scopes, tags, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from building import assert_same_bits, dropout_ir, dropout_model
from expanding import assert_binomial, draw, ort_session

from onnx_spatialdrop.errors import FormError, SpecError
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.expand import ATTRIBUTES_KEY, NODE_KEY, ExpandPass, expand
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY
from onnx_spatialdrop.passes.remove import remove

DRAWING = ["philox", "philox-int32", "uniform", "dropout"]
ALL_FORMS = [*DRAWING, "mask-inputs"]
HEAD = '<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]>'
ON, OFF = np.array(True), np.array(False)


def node(seed: int) -> str:
    return f'onnx_spatialdrop.SpatialDropout <axes = [2, 3], ratio = 0.5, seed = {seed}, scale = 2.0, rng = "philox"> '


def test_uniform_is_random_uniform_less_cast_mul_mul() -> None:
    static = expand(dropout_model(shape=(5, 4, 3, 2), training_mode=True, step=[0], mask=False), form="uniform")
    operators = [n.op_type for n in static.graph.node if n.op_type != "Constant"]
    assert operators == ["RandomUniform", "Less", "Cast", "Mul", "Mul"]
    dynamic = expand(dropout_model(training_mode=True, step=[0], mask=False), form="uniform")
    operators = [n.op_type for n in dynamic.graph.node if n.op_type != "Constant"]
    assert operators == ["Slice", "RandomUniformLike", "Less", "Cast", "Mul", "Mul"]


def test_tract_needs_a_node_name_that_ends_in_like() -> None:
    (like,) = (n for n in expand(dropout_model(), form="uniform").graph.node if n.op_type == "RandomUniformLike")
    assert like.name == "y/uniform/RandomUniformLike"


@pytest.mark.parametrize("form", ALL_FORMS)
def test_what_is_never_written(form: str) -> None:
    operators = {n.op_type for n in expand(dropout_model(), form=form).graph.node}
    assert not operators & {"Bernoulli", "SpatialDropout"}
    assert ("If" in operators) == form.startswith("philox")  # around what draws nothing at random


@pytest.mark.parametrize("form", ALL_FORMS)
def test_names_types_and_shapes_of_outputs_stay(form: str) -> None:
    before, after = dropout_model(), expand(dropout_model(), form=form)
    assert list(after.graph.output) == list(before.graph.output)
    assert [i.name for i in after.graph.input][:2] == ["x", "training_mode"]
    assert ("step" in [i.name for i in after.graph.input]) == form.startswith("philox")
    names = [name for n in after.graph.node for name in n.output]
    assert len(set(names)) == len(names)
    assert len({n.name for n in after.graph.node}) == len(after.graph.node)
    assert {name.split("/")[0] for name in names} - {"masks"} == {"y", "mask"}


@pytest.mark.parametrize("form", ALL_FORMS)
def test_new_names_avoid_those_that_are_taken(form: str) -> None:
    model = dropout_ir()
    model.graph.append(ir.node("Neg", [model.graph.inputs[0]], name=f"y/{form}/mask/deeper"))
    model.graph[-1].outputs[0].name = f"y/{form}_2"
    after = ir.to_proto(expand(model, form=form))
    onnx.checker.check_model(after, full_check=True)
    made = [n.name for n in after.graph.node if n.op_type != "Neg" and not n.name.startswith("masks/")]
    assert {name.split("/")[1] for name in made} == {f"{form}_3"}


@pytest.mark.parametrize("form", ALL_FORMS)
def test_every_new_node_says_what_it_stands_for(form: str) -> None:
    after = expand(dropout_model(ratio=0.3, seed=2**64 - 1), form=form)
    for new in after.graph.node:
        found = {entry.key: entry.value for entry in new.metadata_props}
        if GENERATOR_KEY in found:
            continue
        assert found[NODE_KEY] == "drop"
        attributes = json.loads(found[ATTRIBUTES_KEY])
        assert list(attributes) == ["axes", "ratio", "rng", "scale", "seed", "strata"]
        again = spec.Attributes(**attributes)
        assert again == spec.Attributes((2, 3), 0.3, 2**64 - 1, spec.explicit_scale(0.3))


@pytest.mark.parametrize("form", ALL_FORMS)
def test_equal_input_gives_equal_bytes_and_the_callers_model_stays(form: str) -> None:
    model = dropout_model()
    before = model.SerializeToString(deterministic=True)
    first, second = (expand(model, form=form).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert model.SerializeToString(deterministic=True) == before


def test_a_path_gives_an_ir_model_or_the_path_written(tmp_path: Path) -> None:
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(dropout_model(), source)
    assert isinstance(expand(source), ir.Model)
    assert expand(source, target) == target
    assert onnx.load(target) == expand(dropout_model())


@pytest.mark.parametrize("form", ALL_FORMS)
def test_constantly_false_is_the_model_without_dropout(form: str) -> None:
    model = dropout_model(training_mode=False, wrap=True)
    assert expand(model, form=form) == remove(model)
    assert expand(dropout_model(wrap=True), form="identity") == remove(dropout_model(wrap=True))


def test_a_model_without_the_node_is_not_modified() -> None:
    model = remove(dropout_ir())
    assert not ExpandPass().call(model).modified


@pytest.mark.parametrize("form", ALL_FORMS)
def test_an_unused_mask_leaves_no_trace(form: str) -> None:
    after = expand(dropout_model(mask=False), form=form)
    assert "mask" not in {name for n in after.graph.node for name in (*n.input, *n.output)}
    assert [o.name for o in after.graph.output] == ["y"]


def in_if() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""{HEAD} g (bool c, float[N, C, 2, 2] x, bool training_mode, int64[1] step) => (float[N, C, 2, 2] y)
        <bool training_mode = {{0}}, int64[1] step = {{-1}}> {{
          y = If (c) <
            then_branch = t () => (float[N, C, 2, 2] a) {{ a, m = {node(1)} (x, training_mode, step) }},
            else_branch = e () => (float[N, C, 2, 2] b) {{
              u, n = {node(2)} (x, training_mode, step)
              b, o = {node(3)} (u, training_mode, step) }}
          > }}"""
    )


@pytest.mark.parametrize("form", DRAWING)
def test_subgraphs(form: str) -> None:
    expanded = expand(in_if(), form=form)
    onnx.checker.check_model(expanded, full_check=True)
    assert [entry.domain for entry in expanded.opset_import] == [""]
    session, x = ort_session(expanded), np.ones((300, 4, 2, 2), np.float32)
    steps = np.array([3])
    for branch, rate in ((True, 0.5), (False, 0.25)):
        (y,) = draw(session, x, c=np.array(branch), training_mode=ON, step=steps)
        kept = y[:, :, 0, 0] != 0
        assert_binomial(int(kept.sum()), kept.size, rate)  # 0.25 only if the two masks are independent
        assert_same_bits(draw(session, x, c=np.array(branch), training_mode=OFF, step=steps)[0], x)
        if form.startswith("philox"):
            wanted = x
            for seed in (1,) if branch else (2, 3):
                wanted = spatial_dropout(wanted, (2, 3), 0.5, seed, 3, scale=2.0)[0]
            assert_same_bits(y, wanted)


def in_function() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[N, C, 2, 2] x, bool training_mode, int64[1] step) => (float[N, C, 2, 2] y)
        <bool training_mode = {{0}}, int64[1] step = {{-1}}> {{ y = own.Block (x, training_mode, step) }}
        <domain: "own", opset_import: ["": 18, "onnx_spatialdrop": 1]> Block (a, t, s) => (b) {{
          h = Abs (a)
          b, m = {node(4)} (h, t, s)
        }}"""
    )


@pytest.mark.parametrize("form", DRAWING)
def test_functions(form: str) -> None:
    expanded = expand(in_function(), form=form)
    onnx.checker.check_model(expanded)
    (function,) = expanded.functions
    assert [entry.domain for entry in function.opset_import] == [""]
    # Where step has become useless, the function's parameter, the argument and the model's input go with it.
    assert len(function.input) == len(expanded.graph.input) == (3 if form.startswith("philox") else 2)
    session, x = ort_session(expanded), np.ones((300, 4, 2, 2), np.float32)
    (y,) = draw(session, x, training_mode=ON, step=np.array([3]))
    assert_binomial(int((y[:, :, 0, 0] != 0).sum()), 1200, 0.5)
    assert set(np.unique(y)) == {0, 2}
    assert_same_bits(draw(session, x, training_mode=OFF, step=np.array([3]))[0], x)
    if form.startswith("philox"):
        assert_same_bits(y, spatial_dropout(x, (2, 3), 0.5, 4, 3, scale=2.0)[0])


def chain(seeds: list[int]) -> onnx.ModelProto:
    lines, source = [], "x"
    for index, seed in enumerate(seeds):
        lines.append(f"y{index}, m{index} = {node(seed)} ({source}, training_mode, step)")
        source = f"y{index}"
    outputs = ", ".join(f"bool[N, C, 1, 1] m{index}" for index in range(len(seeds)))
    return onnx.parser.parse_model(
        f"{HEAD} g (float[N, C, 2, 2] x, bool training_mode, int64[1] step) => (float[N, C, 2, 2] {source}, {outputs})"
        f"<bool training_mode = {{0}}, int64[1] step = {{-1}}> {{ {' '.join(lines)} }}"
    )


@pytest.mark.parametrize("form", ["uniform", "dropout"])
def test_nodes_draw_independently_unless_their_seeds_are_tied(form: str) -> None:
    seeds = [0, 1, 2, 1]
    session, x = ort_session(expand(chain(seeds), form=form)), np.ones((500, 4, 2, 2), np.float32)
    masks = draw(session, x, training_mode=ON)[1:]
    for i in range(4):
        for j in range(i):
            agreements = int((masks[i] == masks[j]).sum())
            if seeds[i] == seeds[j]:
                assert agreements == masks[i].size
            else:
                assert_binomial(agreements, masks[i].size, 0.5)


def test_generators_get_large_distinct_seeds_that_float32_holds() -> None:
    expanded = expand(chain(list(range(300))), form="uniform")
    seeds = [a.f for n in expanded.graph.node for a in n.attribute if a.name == "seed"]
    assert len(set(seeds)) == 300
    assert all(2**30 <= seed < 2**31 and seed == int(seed) for seed in seeds)
    assert seeds[:2] == [1973487616, 1285470976]  # pinned: files made by different versions are to draw alike


def test_a_wrong_node_stops_the_pass_before_anything_changes() -> None:
    model = ir.from_proto(chain([1, 2, 3]))
    before = ir.to_proto(model)
    last = [n for n in model.graph if n.op_type == "SpatialDropout"][2]
    last.attributes["scale"] = ir.AttrFloat32("scale", 5.0)
    uses = len(model.graph.inputs[0].uses())
    with pytest.raises(FormError, match="scale is 5"):
        ExpandPass(target="onnx2torch").call(model)
    last.attributes["ratio"] = ir.AttrFloat32("ratio", 2.0)
    with pytest.raises(SpecError, match="ratio is 2"):
        ExpandPass().call(model)
    last.attributes["ratio"], last.attributes["scale"] = ir.AttrFloat32("ratio", 0.5), ir.AttrFloat32("scale", 2.0)
    assert ir.to_proto(model) == before
    assert len(model.graph.inputs[0].uses()) == uses


@pytest.mark.parametrize("target", ["openvino", "tract", "onnx2pytorch", "onnxruntime-node", "onnxruntime-web"])
def test_switches_lose_their_default_where_it_would_be_a_constant(target: str) -> None:
    expanded = expand(dropout_model(), target=target)
    assert not {"training_mode", "step"} & {tensor.name for tensor in expanded.graph.initializer}
    assert "training_mode" in [value.name for value in expanded.graph.input]


def test_a_default_is_kept_elsewhere() -> None:
    assert [i.name for i in expand(dropout_model()).graph.initializer][:2] == ["training_mode", "step"]
    assert [i.name for i in expand(dropout_model(), form="uniform").graph.initializer] == ["training_mode"]


@pytest.mark.parametrize("shape", [("N", 4, "H", "W"), (5, 4, 3, 2)])
def test_onnx2pytorch_gets_no_seed(shape: tuple[int | str, ...]) -> None:
    """It starts a seeded node anew in every run, and would train with one mask for ever."""
    for target, seeded in (("onnx2pytorch", False), ("onnxruntime", True)):
        expanded = expand(dropout_model(shape=shape), form="uniform", target=target)
        (drawn,) = (n for n in expanded.graph.node if n.op_type.startswith("RandomUniform"))
        assert ("seed" in {attribute.name for attribute in drawn.attribute}) == seeded
