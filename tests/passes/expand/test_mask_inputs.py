"""Masks as inputs: the definition's values for any mask, in every type, and what the inputs are called and shaped."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import onnx_ir as ir
import pytest
from building import assert_same_bits, dropout_ir, dropout_model
from expanding import draw, ort_session, with_float_ends
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph.layers import CALL_KEY, LAYER_KEY
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout
from onnx_spatialdrop.passes.expand import MASK_KEY, expand
from onnx_spatialdrop.passes.fuse.policy import run as fuse

LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
MASK = np.random.default_rng(2).random((5, 4, 1, 1)) < 0.6


def special(dtype: str) -> np.ndarray:
    """Return X with -0, infinities, NaN and subnormals in kept and in dropped maps."""
    x = np.random.default_rng(1).normal(size=(5, 4, 3, 2)).astype(spec.DTYPES[dtype])
    x[:, :, 0, 0] = -0.0
    x[:, :, 0, 1] = np.inf
    x[:, :, 1, 0] = np.nan
    x[:, :, 1, 1] = np.finfo(np.float16).smallest_subnormal
    return x


def expected(x: np.ndarray, mask: np.ndarray = MASK) -> np.ndarray:
    with np.errstate(all="ignore"):
        scaled = x * spec.kept_scale(0.3, spec.explicit_scale(0.3), x.dtype)
    return np.where(mask, scaled, np.zeros((), x.dtype)).astype(x.dtype)


@pytest.mark.parametrize("mask_used", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("training", [None, True], ids=["switch", "always"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_are_the_definitions(dtype: str, level: str, training: bool | None, mask_used: bool) -> None:
    written = expand(dropout_model(dtype=dtype, training_mode=training, mask=mask_used), form="mask-inputs")
    x, feeds = special(dtype), {"drop.mask": MASK, "training_mode": np.array(True)}
    if dtype == "bfloat16":
        written, x = with_float_ends(written), x.astype(np.float32)
        wanted = expected(x.astype(ml_dtypes.bfloat16)).astype(np.float32)
    else:
        wanted = expected(x)
    y, *mask = draw(ort_session(written, level), x, **feeds)
    assert_same_bits(y, wanted)
    np.testing.assert_array_equal(mask, [MASK] * mask_used)


@pytest.mark.parametrize("training", [None, True], ids=["switch", "always"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_kept_negative_zero_stays_one(level: str, training: bool | None) -> None:
    """ONNX Runtime's Where loses the sign of a zero that is its second input, which it makes of a Not's third one."""
    model = dropout_model(shape=("N", 8), axes=(), training_mode=training, mask=False)
    x, mask = np.full((2, 8), -0.0, np.float32), np.arange(16).reshape(2, 8) % 3 > 0
    feeds = {"drop.mask": mask, "training_mode": np.array(True)}
    (y,) = draw(ort_session(expand(model, form="mask-inputs"), level), x, **feeds)
    np.testing.assert_array_equal(np.signbit(y), mask)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_in_the_reference_evaluator(dtype: str) -> None:
    written, x = expand(dropout_model(dtype=dtype), form="mask-inputs"), special(dtype)
    with np.errstate(all="ignore"):
        y, mask = ReferenceEvaluator(written).run(None, {"x": x, "training_mode": np.array(True), "drop.mask": MASK})
    assert_same_bits(y, expected(x))
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_unknown_type_is_followed(dtype: str) -> None:
    model = dropout_ir(dtype)
    inner = ir.node("Identity", [model.graph.inputs[0]], name="inner")
    model.graph.insert_before(model.graph[0], inner)
    model.graph[1].replace_input_with(0, inner.outputs[0])
    inner.outputs[0].shape = model.graph.inputs[0].shape
    model.graph.inputs[0].type = None
    written = ir.to_proto(expand(model, form="mask-inputs"))
    written.graph.input[0].type.tensor_type.elem_type = int(ir.tensor(special(dtype)).dtype)
    (y, _) = draw(ort_session(written), special(dtype), **{"drop.mask": MASK, "training_mode": np.array(True)})
    assert "CastLike" in {node.op_type for node in written.graph.node}
    assert_same_bits(y, expected(special(dtype)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_while_idle_y_is_x_and_the_mask_is_true_whatever_is_fed(dtype: str) -> None:
    session, x = ort_session(expand(dropout_model(dtype=dtype), form="mask-inputs")), special(dtype)
    y, mask = draw(session, x, **{"drop.mask": np.zeros((1, 4, 1, 1), bool)})
    assert_same_bits(y, x)
    assert mask.all()


def test_a_mask_that_is_not_fed_is_an_error() -> None:
    session = ort_session(expand(dropout_model(), form="mask-inputs"))
    with pytest.raises(ValueError, match=r"Required inputs \(\['drop\.mask'\]\) are missing"):
        session.run(None, {"x": special("float32")})


def test_the_operators_own_masks_fed_give_the_operators_own_results() -> None:
    model, x = dropout_model(axes=(1,), seed=11), special("float32")
    y, mask = spatial_dropout(x, (1,), 0.3, 11, 4, scale=spec.explicit_scale(0.3))
    feeds = {"x": x, "training_mode": np.array(True)}
    got = ort_session(expand(model, form="mask-inputs")).run(None, feeds | {"drop.mask": mask})
    assert_same_bits(got[0], y)
    assert_same_bits(sd.session(model).run(None, feeds | {"step": np.array([4])})[0], y)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tract", "onnx2pytorch", "reference"])
@pytest.mark.parametrize("opset", [9, 11, 13, 18, 24])
def test_it_is_standard_in_every_opset_and_target(opset: int, target: str) -> None:
    written = expand(dropout_model(opset=opset), form="mask-inputs", target=target)
    onnx.checker.check_model(written, full_check=True)
    operators = {node.op_type for node in written.graph.node}
    assert operators == {"Not", "And", "Constant", "Where", "Mul"}
    if target != "onnx2pytorch":
        (y, _) = draw(ort_session(written), special("float32"), **{"drop.mask": MASK, "training_mode": np.array(True)})
        assert_same_bits(y, expected(special("float32")))


def test_the_input_has_the_masks_shape_and_keeps_names() -> None:
    shape = ("batch", 4, "2*h", None)
    proto = expand(dropout_model(shape=shape, axes=(-1,), training_mode=True, step=[0]), form="mask-inputs")
    (_, given) = ir.from_proto(proto).graph.inputs
    assert (given.name, given.dtype) == ("drop.mask", ir.DataType.BOOL)
    assert str(given.shape) == "[batch,4,2*h,1]"
    proto = expand(dropout_model(shape=(5, None, 3, 2)), form="mask-inputs")
    assert str(ir.from_proto(proto).graph.inputs[-1].shape) == "[5,None,1,1]"
    assert "drop.mask" not in [each.name for each in proto.graph.initializer]


def test_inputs_are_named_after_layers_and_their_calls() -> None:
    model = twice()
    names = [value.name for value in sd.expand(model, form="mask-inputs").graph.inputs]
    assert names == ["x", "training_mode", "block.drop:1.mask", "block.drop.mask"]
    model.graph[0].outputs[0].name = "block.drop.mask"
    names = [value.name for value in sd.expand(model, form="mask-inputs").graph.inputs]
    assert names[2:] == ["block.drop:1.mask", "block.drop.mask_2"]


def twice() -> ir.Model:
    """Return a model that holds a layer's second call before its first."""
    model = dropout_ir(mask=False)
    first, switches = model.graph[0], model.graph.inputs[1:]
    second = sd.spatial_dropout(first.outputs[0], 0.3, training_mode=switches[0], step=switches[1], seed=8)
    second.name, second.outputs[0].name = "second", "z"
    model.graph.append(second)
    model.graph.outputs[0] = second.outputs[0]
    for node, call in ((first, "1"), (second, "0")):
        node.metadata_props.update({LAYER_KEY: "block.drop", CALL_KEY: call})
    return model


@pytest.mark.parametrize("form", ["mask-inputs", "uniform"])
def test_fuse_gives_the_layers_names_back(form: str) -> None:
    model = twice()
    again = sd.fuse(sd.expand(model, form=form))
    told = [(each.node.metadata_props[LAYER_KEY], each.node.metadata_props[CALL_KEY]) for each in sd.find(again)]
    assert told == [("block.drop", "1"), ("block.drop", "0")]
    assert not any(MASK_KEY in each.node.metadata_props for each in sd.find(again))
    assert [value.name for value in again.graph.inputs] == ["x", "training_mode", "step"]


@pytest.mark.parametrize("mask", [True, False])
def test_fuse_undoes_it_where_training_mode_is_constant(mask: bool) -> None:
    model = dropout_model(mask=mask, training_mode=True)
    again, report = fuse(expand(model, form="mask-inputs"))
    assert len(report.fused) == 1
    assert [each.name for each in again.graph.output] == [each.name for each in model.graph.output]
    assert [each.name for each in again.graph.input] == ["x", "training_mode", "step"]


def test_a_branch_reads_the_mask_from_outside() -> None:
    text = "onnx_spatialdrop.SpatialDropout <axes = [2, 3], ratio = 0.5, seed = 1> (x, training_mode, step)"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]>
        g (bool c, float[N, C, 2, 2] x, bool training_mode, int64[1] step) => (float[N, C, 2, 2] y)
        <bool training_mode = {{0}}, int64[1] step = {{-1}}> {{
          y = If (c) <then_branch = t () => (float[N, C, 2, 2] a) {{ a, m = {text} }},
                      else_branch = e () => (float[N, C, 2, 2] b) {{ b = Identity (x) }}> }}"""
    )
    written = expand(proto, form="mask-inputs")
    onnx.checker.check_model(written, full_check=True)
    x, mask = np.ones((5, 4, 2, 2), np.float32), MASK
    session = ort_session(written)
    feeds: dict[str, Any] = {"training_mode": np.array(True), "a.mask": mask}
    np.testing.assert_array_equal(draw(session, x, c=np.array(True), **feeds)[0], x * 2 * mask)
    np.testing.assert_array_equal(draw(session, x, c=np.array(False), **feeds)[0], x)
    again = sd.fuse(written)
    assert [each.name for each in again.graph.input] == ["c", "x", "training_mode", "step"]
    (found,) = sd.find(again)
    assert found.scope == "/subgraph"


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    function = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[N, C] x, bool training_mode, int64[1] step) => (float[N, C] y)
        { y = own.Block (x, training_mode, step) }
        <domain: "own", opset_import: ["": 18, "onnx_spatialdrop": 1]> Block (a, t, s) => (b) {
          b, m = onnx_spatialdrop.SpatialDropout <axes = [1], ratio = 0.5, seed = 1> (a, t, s) }"""
    )
    before = function.SerializeToString()
    with pytest.raises(FormError, match=r"computes 'b': stands in the function own::Block.*inline_local_functions"):
        expand(function, form="mask-inputs")
    assert function.SerializeToString() == before
    inlined = onnx.inliner.inline_local_functions(function)
    assert [each.name for each in expand(inlined, form="mask-inputs").graph.input][-1].endswith(".mask")
    unknown = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]>
        g (float[N] a, int64[k] s, bool t, int64[1] step) => (float[N] y) {
          x = Reshape (a, s)
          y, m = onnx_spatialdrop.SpatialDropout <axes = [1], ratio = 0.5, seed = 1> (x, t, step) }"""
    )
    with pytest.raises(FormError, match="the rank of its input 'x' is unknown"):
        expand(unknown, form="mask-inputs")
    with pytest.raises(FormError, match="form 'mask-inputs' needs opset 9 or newer"):
        expand(dropout_model(opset=8), form="mask-inputs")
