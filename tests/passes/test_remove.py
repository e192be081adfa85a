"""Removing spatial dropout leaves the model that never had it."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop.passes.remove import RemovePass

NODE = 'onnx_spatialdrop.SpatialDropout <axes: ints = [2, 3], ratio = 0.5, seed = 1, scale = 2.0, rng = "philox">'
HEAD = '<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]>'
SWITCHES = "bool training_mode, int64[steps] step"
DEFAULTS = "bool training_mode = {0}, int64[1] step = {-1}"
X = "float[N, 4, H, W]"


def parse(text: str) -> onnx.ModelProto:
    # onnx's parser writes empty fields that serialisers leave out; the round trip takes them away.
    return ir.to_proto(ir.from_proto(onnx.parser.parse_model(text)))


def in_chain(with_dropout: bool) -> onnx.ModelProto:
    """Return Relu -> dropout -> Neg -> dropout, whose second dropout computes the output; or the same without."""
    if not with_dropout:
        text = f'<ir_version: 9, opset_import: ["": 18]> g ({X} x) => ({X} y) {{ [r] h = Relu(x) [n] y = Neg(h) }}'
        return parse(text)
    return parse(
        f"{HEAD} g ({X} x, {SWITCHES}) => ({X} y) <{DEFAULTS}> {{ [r] h = Relu(x)"
        f" [d1] a, m1 = {NODE} (h, training_mode, step) [n] b = Neg(a)"
        f" [d2] y, m2 = {NODE.replace('seed = 1', 'seed = 2')} (b, training_mode, step) }}"
    )


def test_the_result_is_byte_for_byte_the_model_without_dropout() -> None:
    got = sd.remove(in_chain(True))
    assert got.SerializeToString(deterministic=True) == in_chain(False).SerializeToString(deterministic=True)


def test_the_callers_model_stays_and_its_kind_comes_back() -> None:
    proto = in_chain(True)
    before = proto.SerializeToString(deterministic=True)
    assert isinstance(sd.remove(proto), onnx.ModelProto)
    assert proto.SerializeToString(deterministic=True) == before
    model = dropout_ir(wrap=True)
    assert len(sd.find(sd.remove(model))) == 0
    assert len(sd.find(model)) == 1


def test_a_model_without_the_node_is_not_modified() -> None:
    model = ir.from_proto(in_chain(False))
    assert not RemovePass().call(model).modified


def test_between_an_input_and_an_output_the_node_becomes_identity() -> None:
    got = sd.remove(dropout_model(mask=False))
    assert [(n.op_type, n.name, list(n.input), list(n.output)) for n in got.graph.node] == [
        ("Identity", "drop", ["x"], ["y"])
    ]
    assert [v.name for v in got.graph.input] == ["x"]
    assert not got.graph.initializer
    assert [o.domain for o in got.opset_import] == [""]


def test_two_outputs_of_one_value_keep_their_names() -> None:
    """H is an output itself, so it cannot take over the name y."""
    model = parse(
        f"{HEAD} g ({X} x, {SWITCHES}) => ({X} h, {X} y) <{DEFAULTS}> {{ h = Relu(x)"
        f" [d] y, m = {NODE} (h, training_mode, step) }}"
    )
    got = sd.remove(model)
    assert [v.name for v in got.graph.output] == ["h", "y"]
    assert [n.op_type for n in got.graph.node] == ["Relu", "Identity"]


def test_a_used_mask_becomes_ones_of_its_shape() -> None:
    got = sd.remove(dropout_model(axes=(1, -1)))
    session = onnxruntime.InferenceSession(got.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((2, 4, 3, 5), np.float32)
    y, mask = session.run(None, {"x": x})
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(mask, np.ones((2, 1, 3, 1), np.bool_))
    assert mask.dtype == np.bool_


def test_inside_an_if_branch_an_outer_value_keeps_an_identity() -> None:
    """A branch has to compute its outputs itself."""
    model = parse(
        f"{HEAD} g ({X} x, bool c, {SWITCHES}) => ({X} y) <{DEFAULTS}> {{ h = Relu(x)"
        f" y = If(c) <then_branch = t () => ({X} u) {{ [d] u, m = {NODE} (h, training_mode, step) }},"
        f" else_branch = e () => ({X} v) {{ w = Neg(h) [d2] v, m2 = {NODE} (w, training_mode, step) }}> }}"
    )
    got = sd.remove(model)
    branches = {a.name: a.g for a in got.graph.node[1].attribute}
    assert [n.op_type for n in branches["then_branch"].node] == ["Identity"]
    assert [(n.op_type, list(n.output)) for n in branches["else_branch"].node] == [("Neg", ["v"])]
    onnx.checker.check_model(got, full_check=True)
    session = onnxruntime.InferenceSession(got.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, 4, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "c": np.array(True)})[0], np.maximum(x, 0))
    assert [v.name for v in got.graph.input] == ["x", "c"]


def test_functions_lose_the_parameters_that_only_steered_dropout() -> None:
    model = parse(
        f'<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1, "f": 1]> g ({X} x, {SWITCHES}) => ({X} y)'
        f" <{DEFAULTS}> {{ y = f.block(training_mode, x, step) }}"
        '<domain: "f", opset_import: ["": 18, "onnx_spatialdrop": 1]> block (t, a, s) => (b)'
        f" {{ h = Relu(a) d, m = {NODE} (h, t, s) b = Neg(d) }}"
    )
    got = sd.remove(sd.attach(model))
    assert list(got.graph.node[0].input) == ["x"]
    assert [(f.name, list(f.input), [n.op_type for n in f.node]) for f in got.functions] == [
        ("block", ["a"], ["Relu", "Neg"])
    ]
    assert [o.domain for o in got.functions[0].opset_import] == [""]
    assert [v.name for v in got.graph.input] == ["x"]
    onnx.checker.check_model(got, full_check=True)


def test_a_switch_that_something_else_reads_stays() -> None:
    model = parse(
        f"{HEAD} g ({X} x, {SWITCHES}) => ({X} y, bool z) <{DEFAULTS}> {{ z = Not(training_mode) h = Relu(x)"
        f" [d] y, m = {NODE} (h, training_mode, step) }}"
    )
    got = sd.remove(model)
    assert [v.name for v in got.graph.input] == ["x", "training_mode"]
    assert [v.name for v in got.graph.initializer] == ["training_mode"]


def test_what_computed_only_the_step_goes_but_the_callers_inputs_stay() -> None:
    model = parse(
        f"{HEAD} g ({X} x, int64[1] epoch, bool training_mode) => ({X} y) {{ k = Constant <value_ints = [1000]> ()"
        f" s = Mul(epoch, k) h = Relu(x) [d] y, m = {NODE} (h, training_mode, s) }}"
    )
    got = sd.remove(model)
    assert [n.op_type for n in got.graph.node] == ["Relu"]
    assert [v.name for v in got.graph.input] == ["x", "epoch"]


def test_a_node_that_is_wrong_is_named_and_nothing_is_changed() -> None:
    model = dropout_ir()
    del model.graph[0].attributes["axes"]
    with pytest.raises(sd.SpecError, match="node 'drop': attribute axes is missing"):
        sd.remove(model)
    assert model.graph[0].op_type == "SpatialDropout"


def test_new_names_keep_out_of_the_way_of_old_ones() -> None:
    model = dropout_model(mask=True)
    model.graph.node.append(onnx.helper.make_node("Neg", ["y"], ["y/ones/shape"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("y/ones/shape", 1, ["N", 4, "H", "W"]))
    onnx.checker.check_model(sd.remove(model), full_check=True)
    onnx.checker.check_model(sd.remove(sd.remove(model)), full_check=True)


def test_attributes_that_refer_to_a_functions_own_do_not_stand_in_the_way() -> None:
    model = parse(
        f'<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1, "f": 1]> g ({X} x, {SWITCHES}) => ({X} y)'
        f" <{DEFAULTS}> {{ y = f.block <r: float = 0.5> (x, training_mode, step) }}"
        '<domain: "f", opset_import: ["": 18, "onnx_spatialdrop": 1]> block <r> (a, t, s) => (b)'
        " { h = Relu(a) d, m = onnx_spatialdrop.SpatialDropout <axes: ints = [2], ratio: float = @r, seed: int = 1>"
        " (h, t, s) b = Neg(d) }"
    )
    assert [n.op_type for n in sd.remove(model).functions[0].node] == ["Relu", "Neg"]


def test_names_types_and_metadata_of_outputs_are_kept() -> None:
    model = dropout_ir(wrap=True, mask=False)
    model.graph[1].outputs[0].metadata_props["who"] = "me"
    drop = model.graph[1]
    model.graph.outputs.append(drop.outputs[0])
    got = sd.remove(model)
    kept = got.graph.outputs[1]
    assert (kept.name, kept.metadata_props["who"], kept.producer().op_type) == ("dropped", "me", "Abs")
