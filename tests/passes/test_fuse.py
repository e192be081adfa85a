"""What fuse makes of draws: one node for one mask, its switches, its seed, and nothing else touched."""

import json

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from building import dropout_ir, dropout_model
from exported import brief, exported, fuse_file, idiom

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.fuse.policy import run as fuse

HEAD = '<ir_version: 9, opset_import: ["": 18]> g (float[N, 4, H, W] x) => (float[N, 4, H, W] y)'
DRAW = """
    s = Shape <start = 0, end = 2> (x)
    ones = Constant <value_ints = [1, 1]> ()
    d = Concat <axis = 0> (s, ones)
    t = ConstantOfShape (d)
    u = RandomUniformLike (t)
    keep = Constant <value_float = 0.75> ()
    low = Less (u, keep)
    m = Cast <to = 1> (low)
"""


def parse(body: str, head: str = HEAD) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{head} {{ {body} }}")


def test_elementwise_dropout_becomes_a_node_on_request() -> None:
    model, report = fuse_file(exported("torch_net_mnistnet_train_dynN.onnx"), elementwise=True)
    assert brief(report.fused) == [("spatial", 0.5, 4, [2, 3]), ("elementwise", 0.5, 2, [])]
    assert [node.axes for node in sd.find(model)] == [(2, 3), ()]


def test_bernoulli_becomes_a_node_on_request() -> None:
    _, report = fuse_file(idiom("bernoulli_operator_dynamo.onnx"), bernoulli=True)
    assert brief(report.fused) == [("spatial", 0.2, 4, [2, 3])]


def test_equal_seeds_are_named_and_every_draw_gets_its_own() -> None:
    second = "u2 = RandomUniformLike <seed = 0.0> (t) l2 = Less (u2, keep) m2 = Cast <to = 1> (l2)"
    body = DRAW.replace("RandomUniformLike", "RandomUniformLike <seed = 0.0>")
    model, report = fuse(parse(f"{body} {second} a = Div (x, keep) b = Mul (a, m) c = Div (b, keep) y = Mul (c, m2)"))
    assert len(report.fused) == 2
    assert all("2 random nodes have the seed 0" in record.notes[0] for record in report.fused)
    assert len({node.seed for node in sd.find(model)}) == 2


def test_one_mask_for_two_products_stays_one_mask() -> None:
    body = f"{DRAW} f = Div (m, keep) n = Neg (x) a = Mul (x, f) b = Mul (n, f) y = Add (a, b)"
    model, report = fuse(parse(body))
    assert [(record.kind, record.tied) for record in report.fused] == [("shared_mask", True)] * 2
    assert len({node.seed for node in sd.find(model)}) == 1
    assert sd.check(sd.attach(model)) == []
    x = np.ones((5, 4, 2, 3), np.float32)
    session = onnxruntime.InferenceSession(sd.attach(model).SerializeToString())
    for step in range(5):  # x kept and -x kept cancel wherever both fell together
        assert not session.run(None, {"x": x, "step": np.array([step])})[0].any()


def test_two_draws_stay_two_draws() -> None:
    model, report = fuse_file(exported("torch_two_equal_dropout2d_same_input_train.onnx"))
    assert [record.tied for record in report.fused] == [False, False]
    assert len({node.seed for node in sd.find(model)}) == 2


def test_only_what_the_fusion_killed_goes() -> None:
    dead = "idle = Neg (x)"
    model = sd.fuse(parse(f"{DRAW} {dead} f = Div (m, keep) y = Mul (x, f)"))
    assert [node.op_type for node in model.graph.node] == ["Neg", "SpatialDropout"]
    assert len(model.graph.initializer) == 2  # the switches' defaults
    onnx.checker.check_model(model)


def test_a_switch_in_the_graph_becomes_training_mode() -> None:
    head = HEAD.replace("x)", "x, bool train)", 1)
    for switched in (
        "f = Div (m, keep) p = Mul (x, f) y = Where (train, p, x)",
        "f = Div (m, keep) one = Constant <value_float = 1.0> () g = Where (train, f, one) y = Mul (x, g)",
    ):
        model, report = fuse(parse(f"{DRAW} {switched}", head))
        assert [record.axes for record in report.fused] == [(2, 3)]
        assert model.graph.node[-1].input[1] == "train"
    always_scaled = "one = Constant <value_float = 1.0> () g = Where (train, m, one) p = Mul (x, g) y = Div (p, keep)"
    _, report = fuse(parse(f"{DRAW} {always_scaled}", head))
    assert report.refused[0].reason == "with 'train' false it is not the identity"


def test_a_mask_that_a_branch_reads_is_fused_there() -> None:
    body = """
        f = Div (m, keep) c = Constant <value = bool {1}> ()
        y = If (c) <then_branch = t () => (float[N, 4, H, W] a) { a = Mul (x, f) },
                    else_branch = e () => (float[N, 4, H, W] b) { b = Identity (x) }>
    """
    model, report = fuse(parse(DRAW + body))
    assert [record.axes for record in report.fused] == [(2, 3)]
    assert [node.op_type for node in model.graph.node] == ["Constant", "If"]
    onnx.checker.check_model(model)


def test_a_mask_that_a_loop_reads_is_left_alone() -> None:
    body = """
        f = Div (m, keep) n = Constant <value_int = 2> () c = Constant <value = bool {1}> ()
        y = Loop (n, c, x) <body = b (int64 i, bool on, float[N, 4, H, W] a) => (bool off, float[N, 4, H, W] z)
            { off = Identity (on) z = Mul (a, f) }>
    """
    _, report = fuse(parse(DRAW + body))
    assert report.refused[0].reason == "a subgraph reads it (Mul)"


def test_dropout_inside_a_function_is_fused_with_constants() -> None:
    text = f"""
        <ir_version: 9, opset_import: ["": 18, "own": 1]> g (float[N, 4, H, W] x) => (float[N, 4, H, W] y)
        {{ y = own.Drop (x) }}
        <domain: "own", opset_import: ["": 18]> Drop (x) => (y) {{ {DRAW} f = Div (m, keep) y = Mul (x, f) }}
    """
    model, report = fuse(onnx.parser.parse_model(text))
    assert [record.axes for record in report.fused] == [(2, 3)]
    assert [node.op_type for node in model.functions[0].node] == ["Constant", "Constant", "SpatialDropout"]


@pytest.mark.parametrize("form", ["uniform", "dropout", "philox", "philox-int32", "mask-inputs"])
@pytest.mark.parametrize("ratio", [0.2, 1 / 3, 0.123456789, 0.0, 1.0])
def test_fusing_what_expand_wrote_gives_the_model_back(form: str, ratio: float) -> None:
    model = ir.to_proto(dropout_ir(ratio=ratio, opset=20, mask=False, wrap=True, strata=31))
    again = sd.fuse(sd.expand(model, form=form))
    expected = onnx.printer.to_text(model).replace(" mask", ' "dropped/mask"')  # an unused name is not kept
    assert onnx.printer.to_text(again) == expected


@pytest.mark.parametrize("form", ["uniform", "dropout"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_expanded_nodes_are_recognised_without_their_tags_too(form: str, dtype: str) -> None:
    written = sd.expand(ir.to_proto(dropout_ir(dtype, mask=False, wrap=True)), form=form)
    for node in written.graph.node:
        node.ClearField("metadata_props")
    model, report = fuse(written)
    assert brief(report.fused) == [("spatial", 0.3, 4, [2, 3])]
    assert [node.training_mode for node in sd.find(model)] == ["switch training_mode (false)"]


def test_a_model_with_its_body_stays_as_it_is() -> None:
    model = sd.attach(dropout_model())
    again, report = fuse(model)
    assert (report.fused, report.refused) == ([], [])
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_equal_input_gives_equal_bytes_and_the_callers_model_is_left_alone() -> None:
    model = onnx.load(exported("torch_net_enet_train_dynN.onnx"))
    before = model.SerializeToString(deterministic=True)
    one, two = (sd.fuse(model, seed=3).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert model.SerializeToString(deterministic=True) == before
    assert [n.seed for n in sd.find(sd.fuse(model, seed=4))] != [n.seed for n in sd.find(sd.fuse(model, seed=3))]


def test_the_report_is_plain_data() -> None:
    _, report = fuse_file(exported("torch_net_mnistnet_train_dynN.onnx"))
    told = json.loads(json.dumps(report.as_dict()))
    assert told["fused"][0]["axes"] == [2, 3]
    assert told["refused"][0]["kind"] == "elementwise"
    assert str(report).startswith(
        "1 fused, 1 refused\nfused 'node_mul_21': spatial, ratio 0.5, axes [2, 3]\n  proven: "
    )


def test_a_graph_without_draws_is_not_modified() -> None:
    model = ir.load(exported("torch_net_enet_eval_dynN.onnx"))
    assert not FusePass().call(model).modified


def test_ratio_and_scale_are_what_the_author_wrote() -> None:
    model, _ = fuse_file(exported("torch_dropout2d_train_p90.onnx"))
    assert sd.find(model)[0].scale == spec.explicit_scale(0.9)
