"""Files whose batch somebody opened at the inputs, while what they say of the values in between stayed as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

import onnx_spatialdrop as sd

X = np.random.default_rng(0).uniform(0.5, 2.0, (4, 6, 3, 5)).astype(np.float32)
SWITCHES = ", bool training_mode, int64[steps] step", "<bool training_mode = {1}, int64[1] step = {7}>"
DROPPED = "onnx_spatialdrop.SpatialDropout"
#: Nodes between x and r, by what stands there. Nobody infers how many rows Compress keeps.
NETWORKS = {
    "an operator": "r = Relu (x)",
    "views": "s = Constant <value_ints = [-1, 30, 3]> ()  v = Reshape (x, s)"
    "  w = Constant <value_ints = [-1, 6, 3, 5]> ()  r = Reshape (v, w)",
    "rows that nobody knows": "n = Constant <value = bool[4] {1, 1, 1, 1}> ()  o = Not (n)  p = Not (o)"
    "  q = Compress <axis = 0> (x, p)  r = Relu (q)",
    "a loop": "t = Constant <value_int = 2> ()  on = Constant <value = bool {1}> ()"
    "  r = Loop (t, on, x) <body = b (int64 i, bool go, float[TOLD,6,3,5] s) => (bool same, float[TOLD,6,3,5] z)"
    " { same = Identity (go)  z = Relu (s) }>",
}
FORMS = ("philox", "philox-int32", "uniform", "mask-inputs", "dropout")


def opened(nodes: str, told: int, inputs: tuple[str, str] = ("", "")) -> onnx.ModelProto:
    """Return a model from x to y whose batch is open, and whose values in between are said to have ``told`` rows."""
    shape = f"float[{told},6,3,5]"
    opsets = 'opset_import: ["" : 18, "onnx_spatialdrop" : 1]'
    model = onnx.parser.parse_model(
        f"<ir_version: 10, {opsets}> g ({shape} x{inputs[0]}) => ({shape} y) {inputs[1]} {{ {nodes} }}".replace(
            "TOLD", str(told)
        )
    )
    for name in ("r", "a", "b"):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, [told, 6, 3, 5]))
    for value in (*model.graph.input[:1], *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model


def silent(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without what it says of the values in between."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.graph.ClearField("value_info")
    for node in bare.graph.node:
        for attribute in node.attribute:
            for value in (*attribute.g.input[2:], *attribute.g.output[1:]):
                value.type.tensor_type.ClearField("shape")
    return bare


def run(model: onnx.ModelProto, **feeds: Any) -> np.ndarray:
    """Run a model; ONNX Runtime plans its memory by what a file says, so it says nothing."""
    return ort.InferenceSession(silent(model).SerializeToString()).run(None, {"x": X} | feeds)[0]


def layers(axes: str = "[2, 3]") -> str:
    attributes = f"axes: ints = {axes}, ratio = 0.5"
    return (
        f"a, am = {DROPPED} <{attributes}, seed = 1> (r, training_mode, step)  c = Abs (a)"
        f"  b, bm = {DROPPED} <{attributes}, seed = 2> (c, training_mode, step)  y = Abs (b)"
    )


@pytest.mark.parametrize("told", [1, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", NETWORKS)
def test_masks_have_the_rows_that_are_fed(network: str, form: str, told: int) -> None:
    model = opened(f"{NETWORKS[network]}  {layers()}", told, SWITCHES)
    written, expected = (sd.expand(each, form=form) for each in (model, silent(model)))
    given = [value.name for value in written.graph.input if value.name not in ("x", "training_mode", "step")]
    masks = {name: np.arange(place, 24 + place).reshape(4, 6, 1, 1) % 5 > 1 for place, name in enumerate(given)}
    got = run(written, **masks)
    assert got.shape == X.shape
    kept = got[:, :, 0, 0] != 0
    assert not (kept == kept[:1]).all()
    if form not in ("uniform", "dropout"):
        np.testing.assert_array_equal(got, run(expected, **masks))


@pytest.mark.parametrize("told", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kernel", ["python", "native"])
def test_so_they_have_by_kernels(kernel: str, network: str, told: int) -> None:
    model = opened(f"{NETWORKS[network]}  {layers('[]')}", told, SWITCHES)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it believes what a file says
    got, expected = (
        sd.session(each, kernel, sess_options=options).run(None, {"x": X})[0] for each in (silent(model), model)
    )
    np.testing.assert_array_equal(got, expected)


def test_a_mask_of_one_row_is_shared_by_a_batch_that_is_said_to_have_one() -> None:
    drawn = "u = RandomUniform <shape = [1, 6, 1, 1]> ()  k = Constant <value_float = 0.75> ()  l = Less (u, k)"
    model = opened(f"r = Relu (x)  {drawn}  m = Cast <to = 1> (l)  s = Div (m, k)  y = Mul (r, s)", 1)
    (record,) = sd.explain(model).fused
    assert record.axes == (0, 2, 3)


@pytest.mark.parametrize("network", NETWORKS)
def test_dropout_is_inserted_for_the_rows_that_are_fed(network: str) -> None:
    model = opened(f"{NETWORKS[network]}  y = Abs (r)", 1)
    given = sd.insert(model, after="r", noise_shape=[4, 6, 1, 1])
    (node,) = (node for node in given.graph.node if node.op_type == "SpatialDropout")
    assert list(node.attribute[0].ints) == [2, 3]


@pytest.mark.parametrize("network", sorted({*NETWORKS} - {"views"}))  # which ONNX Runtime does not run as they are
def test_predictions_are_those_of_the_rows_that_are_fed(network: str) -> None:
    model = opened(f"{NETWORKS[network]}  {layers()}", 1, SWITCHES)
    one, two = (sd.MCDropout(each, 8, 0, task="regression").predict(X) for each in (model, silent(model)))
    np.testing.assert_array_equal(one["y"].mean, two["y"].mean)
    assert not np.allclose(one["y"].mean[0] / X[0], one["y"].mean[1] / X[1])


def test_masks_of_sizes_that_onnx_runtime_does_not_infer_are_drawn_one_after_the_other() -> None:
    sequence = (
        "n = SequenceConstruct (x, x)"
        "  m = SequenceMap (n) <body = b (float[N,6,3,5] e) => (float[N,6,3,5] f) { f = Neg (e) }>"
        "  r = ConcatFromSequence <axis = 3> (m)"
    )
    model = silent(opened(f"{sequence}  {layers('[]')}", 1, SWITCHES))
    model.graph.output[0].type.tensor_type.shape.dim[3].Clear()
    kept = run(sd.expand(model, form="philox"))
    np.testing.assert_array_equal(kept, sd.session(model, "native").run(None, {"x": X})[0])
