"""One call cleans any training-mode export: the framework's eval outputs, and no more nodes than its eval export."""

from contextlib import nullcontext

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from exported import EXPORTED, IDIOMS, KERAS, exported, idiom, keras
from installed import skip_newer

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import TrainingLeftWarning
from onnx_spatialdrop.passes.to_inference import InferencePass

RANDOM = ("RandomUniform", "RandomUniformLike", "Bernoulli", "Dropout", "StatelessRandomUniformV2", "SpatialDropout")
NETS = [name for name, case in EXPORTED.items() if "eval" in case]
FROZEN = ("torch_hand_ones_dropout_mul_train_static.onnx", "keras3_spatialdropout2d_mc_static_FROZEN_BUG.onnx")
CLEAN = ("feature_alpha", "alpha", "elementwise", "bernoulli_operator")


def random_nodes(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type in RANDOM]


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_the_frameworks_eval_outputs(name: str) -> None:
    model = sd.to_inference(onnx.load(exported(name)))
    skip_newer(model)
    arrays = dict(np.load(exported(name).replace(".onnx", ".npz")))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    got = session.run(None, {session.get_inputs()[0].name: arrays["in0"]})[0]
    np.testing.assert_allclose(got, arrays["out"], rtol=1e-5, atol=1e-5 * np.abs(arrays["out"]).max())
    assert len(model.graph.node) <= len(onnx.load(exported(EXPORTED[name]["eval"])).graph.node)
    assert len(session.get_inputs()) == 1


@pytest.mark.parametrize("name", [name for name, case in EXPORTED.items() if case["holds"] != "other noise"])
def test_nothing_random_is_left_and_the_file_is_valid(name: str) -> None:
    frozen = name in FROZEN
    with pytest.warns(TrainingLeftWarning, match="froze it") if frozen else nullcontext():
        model = sd.to_inference(onnx.load(exported(name)))
    assert random_nodes(model) == []
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", [n for n, e in IDIOMS.items() if e is not None or n.startswith(CLEAN)])
def test_idioms_are_cleaned_too(name: str) -> None:
    model = sd.to_inference(onnx.load(idiom(name)))
    assert random_nodes(model) == []
    x = np.random.default_rng(0).standard_normal(
        [d.dim_value or 3 for d in model.graph.input[0].type.tensor_type.shape.dim]
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    got = session.run(None, {"x": x.astype(np.float32)})[0]
    y = np.maximum(x, 0)
    y = y + np.tanh(y) if name.startswith("shared") else y
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-y)), rtol=1e-5)


def test_views_around_a_removed_node_that_undo_each_other_go_too() -> None:
    model = sd.to_inference(onnx.load(idiom("permuted_dropout1d_dynamo.onnx")))
    assert [node.op_type for node in model.graph.node] == ["Relu", "Sigmoid"]
    model = sd.to_inference(onnx.load(idiom("dropout1d_unbatched_dynamo.onnx")))
    assert [node.op_type for node in model.graph.node] == ["Relu", "Sigmoid"]


def test_noise_that_is_no_dropout_stays_and_is_reported() -> None:
    model = onnx.load(idiom("no_scale_dynamo.onnx"))
    with pytest.warns(TrainingLeftWarning, match="'node_rand' .*: kept values are multiplied by 1;"):
        got = sd.to_inference(model)
    assert got.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_dropout_that_is_off_goes() -> None:
    name = "jax2onnx_flax_dropout_bdnone_eval.onnx"
    assert [node.op_type for node in sd.to_inference(onnx.load(exported(name))).graph.node] == ["Identity"]
    rewrite = InferencePass()
    model = onnx.load(exported("keras28_net_text_cnn_mc_opset11.onnx"))
    rewrite.call(ir.from_proto(model))
    assert (rewrite.removed, rewrite.report.refused) == (2, [])


@pytest.mark.parametrize("name", KERAS)
def test_keras_networks_become_their_eval_exports(name: str) -> None:
    model = sd.to_inference(onnx.load(keras(f"{name}_train.onnx")))
    assert random_nodes(model) == []
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) <= len(onnx.load(keras(f"{name}_eval.onnx")).graph.node)
    arrays = dict(np.load(keras(f"{name}.npz")))
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": arrays["x"]})[0]
    np.testing.assert_allclose(got, arrays["y"], rtol=1e-5, atol=1e-6)


def test_noise_before_an_if_whose_branches_become_equal_is_followed_past_it() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2,3] x, bool c) => (float[2,3] y) {'
        " u = RandomUniformLike (x)  p = Mul (x, u)"
        " d = If (c) <then_branch = a () => (float[2,3] f) { e = Dropout (p)  f = Relu (e) },"
        " else_branch = b () => (float[2,3] g) { g = Relu (p) }>  y = Dropout (d) }"
    )
    clean = sd.to_inference(model)
    assert [node.op_type for node in clean.graph.node] == ["RandomUniformLike", "Mul", "Relu"]


MASK = "d, m = Dropout (o, r, on)  f = Cast <to = 1> (m)  k = Constant <value_float = SCALE> ()  q = Mul (f, k)"
SWITCHED = (
    '<ir_version: 8, opset_import: ["" : 18]> g (float[2,3] x) => (float[2,3] y) {'
    " c = Constant <value = bool[1] {1}> ()  e = Constant <value = int64[0] {}> ()  on = Reshape (c, e)"
    " r = Constant <value_float = 0.5> ()  s = Shape (x)  o = ConstantOfShape <value = float[1] {1.0}> (s)"
    f" {MASK}  y = Mul (x, q) }}"
)


def test_a_switch_that_is_worked_out_from_constants_is_none() -> None:
    one = "k = Constant <value_float = 2.0> ()  l = Constant <value_float = 1.0> ()  w = Where (on, k, l)"
    text = SWITCHED.replace("k = Constant <value_float = SCALE> ()", one).replace("Mul (f, k)", "Mul (f, w)")
    clean = sd.to_inference(onnx.parser.parse_model(text))
    assert [node.op_type for node in clean.graph.node] == ["Identity"]


def test_a_mask_that_became_true_for_what_is_not_proven_is_named() -> None:
    with pytest.warns(TrainingLeftWarning, match="its mask is true now, .*: kept values are multiplied by 3; dropout"):
        sd.to_inference(onnx.parser.parse_model(SWITCHED.replace("SCALE", "3.0")))
    assert (
        sd.to_inference(onnx.parser.parse_model(SWITCHED.replace("SCALE", "2.0"))).graph.node[0].op_type == "Identity"
    )
