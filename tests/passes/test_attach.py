"""One file that runs with and without a kernel."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import dropout_ir, dropout_model
from onnx.reference import ReferenceEvaluator
from zoo import feeds, path, record

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.operator import spec


def test_attach_adds_the_functions_and_detach_takes_them_out_again() -> None:
    model = dropout_model(opset=21, rng="keras_jax")
    attached = sd.attach(model)
    assert [(f.domain, f.name) for f in attached.functions] == [
        ("onnx_spatialdrop", "AddWords"),  # helpers first: onnx's ReferenceEvaluator resolves in this order
        ("onnx_spatialdrop", "TurnWord"),
        ("onnx_spatialdrop", "Threefry2x32"),
        ("onnx_spatialdrop", "SpatialDropout"),
    ]
    assert {o.domain: o.version for o in attached.functions[3].opset_import} == {"": 21, "onnx_spatialdrop": 1}
    onnx.checker.check_model(attached, full_check=True)
    assert sd.detach(attached).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_attach_twice_is_attach_once() -> None:
    once = sd.attach(dropout_model())
    assert sd.attach(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_a_body_for_another_opset_is_replaced() -> None:
    attached = sd.attach(dropout_model(opset=17, rng="keras_jax"))
    attached.opset_import[0].version = 20
    again = sd.attach(attached)
    assert again.functions[-1].opset_import[0].version == 20
    assert len(again.functions) == 4


def test_a_body_follows_the_dialects_of_the_nodes() -> None:
    attached = sd.attach(dropout_model(rng="keras_jax"))
    next(a for a in attached.graph.node[0].attribute if a.name == "rng").s = b"keras_tf"
    model = dropout_model(rng="keras_tf", scale=sd.find(attached)[0].scale)
    again = sd.attach(attached)
    assert again.SerializeToString(deterministic=True) == sd.attach(model).SerializeToString(deterministic=True)
    assert sd.detach(again).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_nodes_that_come_later_get_a_body_that_knows_them() -> None:
    attached = sd.attach(dropout_model(rng="keras_tf", wrap=True))
    more = sd.insert(attached, after="before_out", rate=0.5)
    assert [found.rng for found in sd.find(more)] == ["philox", "keras_tf"]
    session = onnxruntime.InferenceSession(more.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((1, 4, 2, 2), np.float32), "training_mode": np.array(True), "step": np.array([3])}
    y, mask = session.run(["y", "mask"], feeds)
    kept = mask.copy()
    for found in sd.find(more):
        drawn = reference.dropout_mask((1, 4, 2, 2), (2, 3), found.ratio, found.seed, 3, rng=found.rng)
        kept &= drawn if found.rng == "philox" else True
    np.testing.assert_array_equal((y != 0).any(axis=(2, 3), keepdims=True), kept)
    np.testing.assert_array_equal(mask, reference.dropout_mask((1, 4, 2, 2), (2, 3), 0.3, 7, 3, rng="keras_tf"))


def test_models_without_nodes_or_bodies_stay_as_they_are() -> None:
    plain = sd.remove(dropout_model(mask=False))
    assert sd.attach(plain).SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)
    assert sd.detach(plain).SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_scale_of_zero_is_written_out(dtype: str) -> None:
    """ONNX Runtime removes the pair of casts that would round it in the graph."""
    (found,) = sd.find(sd.attach(dropout_model(dtype=dtype, scale=0.0)))
    assert found.scale == float(spec.kept_scale(0.3, 0.0, spec.DTYPES[dtype]))


def test_a_double_keeps_its_scale_of_zero_since_no_float_holds_the_value() -> None:
    assert sd.find(sd.attach(dropout_model(dtype="float64", scale=0.0)))[0].scale == 0.0


def test_bfloat16_beside_double_is_refused() -> None:
    model = dropout_ir(dtype="bfloat16", wrap=True)
    other = dropout_ir(dtype="float64").graph[0]
    x = ir.val("x64", dtype=ir.DataType.DOUBLE, shape=["N", 4])
    model.graph.inputs.append(x)
    drop = sd.spatial_dropout(
        x, 0.5, axes=[1], training_mode=model.graph.inputs[1], step=model.graph.inputs[2], seed=3, name="drop64"
    )
    model.graph.append(drop)
    assert other.op_type == "SpatialDropout"
    with pytest.raises(
        sd.FormError, match="node 'drop' is bfloat16 and node 'drop64' is double, and one function body"
    ):
        sd.attach(model)


def test_an_old_ir_version_is_raised_to_one_that_has_functions() -> None:
    model = dropout_model(opset=17)
    model.ir_version = 7
    assert sd.attach(model).ir_version == 8


def test_the_size_of_a_body_is_a_few_kilobytes() -> None:
    attached = sd.attach(dropout_model())
    assert len(attached.SerializeToString()) - len(dropout_model().SerializeToString()) < 9000
    assert np.all([f.domain == spec.DOMAIN for f in attached.functions])


@pytest.mark.parametrize("outputs", [["y", ""], ["y"]])
def test_a_mask_without_a_name_gets_one(outputs: list[str]) -> None:
    """onnx_ir leaves trailing empty outputs out of the file, and a call with one output does not run."""
    model = dropout_model(mask=False)
    del model.graph.node[0].output[:]
    model.graph.node[0].output.extend(outputs)
    unnamed = ir.to_proto(ir.from_proto(model)).graph.node[0]
    assert list(unnamed.output) == ["y"]  # the trap
    attached = sd.attach(model)
    assert list(attached.graph.node[0].output) == ["y", "y/mask"]
    session = onnxruntime.InferenceSession(attached.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((1, 4, 2, 2), np.float32)})[0].sum() == 16


def test_functions_that_call_the_body_come_after_it() -> None:
    """ReferenceEvaluator reads functions in the order of the file; digits::Stage calls SpatialDropout."""
    attached = sd.attach(onnx.load(path("digits_function")))
    assert [f.name for f in attached.functions] == ["SpatialDropout", "Stage"]
    given = feeds("digits_function", record("digits_function").images[:2], training_mode=True, step=[3])
    (logits,) = ReferenceEvaluator(attached).run(None, given)
    session = onnxruntime.InferenceSession(attached.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(logits, session.run(None, given)[0], rtol=0, atol=2e-5)


def test_defaults_can_be_left_out() -> None:
    attached = sd.attach(dropout_model(), defaults=False)
    assert not attached.graph.initializer
    assert [value.name for value in attached.graph.input] == ["x", "training_mode", "step"]
