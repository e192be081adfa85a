"""The gradient graphs that onnxruntime-training builds, against PyTorch's autograd with the mask that was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import dropout_ir
from onnx_ir.passes.common import InlinePass
from training.golden import CASES, FILE, SEED, SHAPE, STEP, key, torch_gradient

import onnx_spatialdrop as sd
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes import scopes
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.expand import ExpandPass
from onnx_spatialdrop.training import trainer

REASON = trainer.missing_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

FORMS = ("dropout", "uniform", "philox", "philox-int32")


def with_loss(model: ir.Model) -> onnx.ModelProto:
    """Add ``loss = sum(weights * y * y) / 2``."""
    proto = ir.to_proto(model)
    proto.ir_version = 10
    proto.graph.input.append(onnx.helper.make_tensor_value_info("weights", 1, SHAPE))
    for op_type, inputs, output in (
        ("Mul", ["y", "y"], "loss/square"),
        ("Mul", ["loss/square", "weights"], "loss/weighed"),
        ("ReduceSum", ["loss/weighed"], "loss/sum"),
        ("Mul", ["loss/sum", "loss/half"], "loss"),
    ):
        attributes = {"keepdims": 0} if op_type == "ReduceSum" else {}
        proto.graph.node.append(onnx.helper.make_node(op_type, inputs, [output], name=output, **attributes))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "loss/half"))
    proto.graph.output.insert(0, onnx.helper.make_tensor_value_info("loss", 1, []))
    return proto


def gradient(proto: onnx.ModelProto, library: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return d loss / d x and the mask, from the graph that onnxruntime-training builds."""
    import onnxruntime
    from onnxruntime.capi._pybind_state import GradientGraphBuilder, get_optimized_model

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(str(library))
    optimized = get_optimized_model(proto.SerializeToString(), {"x"}, options)
    builder = GradientGraphBuilder(optimized, {"loss"}, {"x"}, "loss", options)
    builder.build()
    session = onnxruntime.InferenceSession(builder.get_model(), options, providers=["CPUExecutionProvider"])
    with np.load(FILE) as stored:
        feeds = {name: stored[name].astype(np.float32) for name in ("x", "weights")}
    feeds |= {each.name: np.ones((), np.float32) for each in session.get_inputs() if each.name == "loss_grad"}
    names = [each.name for each in session.get_outputs()]
    results = dict(zip(names, session.run(None, feeds), strict=True))
    return results["x_grad"], results["mask"]


def assert_pytorchs(got: np.ndarray, mask: np.ndarray, axes: tuple[int, ...], ratio: float) -> None:
    with np.load(FILE) as stored:
        x, weights, kept = stored["x"], stored["weights"], stored[f"{key(axes, ratio)}/kept"]
    np.testing.assert_allclose(got, torch_gradient(x, weights, mask, ratio), rtol=1e-6)
    np.testing.assert_allclose(got, np.where(mask, kept, 0), rtol=1e-6)


def model_of(axes: tuple[int, ...], ratio: float) -> ir.Model:
    return dropout_ir(axes=axes, ratio=ratio, seed=SEED, step=[STEP], training_mode=True, shape=SHAPE)


def recorded_mask(axes: tuple[int, ...], ratio: float) -> np.ndarray:
    with np.load(FILE) as stored:
        return stored[f"{key(axes, ratio)}/mask"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_every_forms_gradient_is_pytorchs(form: str, axes: tuple[int, ...], ratio: float) -> None:
    model = model_of(axes, ratio)
    ExpandPass(form, "onnxruntime-training").call(model)
    got, mask = gradient(with_loss(model))
    assert_pytorchs(got, mask, axes, ratio)
    if form.startswith("philox"):
        np.testing.assert_array_equal(mask, recorded_mask(axes, ratio))


@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_a_file_with_the_body_trains_by_the_same_mask(axes: tuple[int, ...], ratio: float) -> None:
    model = model_of(axes, ratio)
    AttachPass().call(model)
    got, mask = gradient(with_loss(sd.expand(model, target="training", form="philox")))
    np.testing.assert_array_equal(mask, recorded_mask(axes, ratio))
    assert_pytorchs(got, mask, axes, ratio)


@pytest.mark.parametrize(("inline", "message"), [(False, "SpatialDropout"), (True, "CastLike")])
def test_the_builder_fails_on_the_body_itself(inline: bool, message: str) -> None:
    """The trap that TrainerPass leads around: no functions, and no gradient of the CastLike in ours."""
    model = model_of((2, 3), 0.3)
    AttachPass().call(model)
    if inline:
        InlinePass().call(model)
    with pytest.raises(RuntimeError, match=message):
        gradient(with_loss(model))


@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_the_native_ops_gradient_through_its_mask_is_pytorchs(axes: tuple[int, ...], ratio: float) -> None:
    """The op has no gradient of its own: it draws the mask from ones that none flows through, and Mul has one."""
    reason = native.missing_reason()
    if reason is not None:
        pytest.skip(reason)
    model = model_of(axes, ratio)
    (site,) = scopes.spatial_dropouts(model)
    node, x = site.node, model.graph.inputs[0]
    equal = ir.node("Equal", [x, x])
    ones = ir.node("Cast", equal.outputs, {"to": ir.DataType.FLOAT})
    kept = ir.node("Cast", [node.outputs[1]], {"to": ir.DataType.FLOAT})
    scale = ir.Value(name="scale", const_value=ir.tensor(np.float32(spec.kept_scale(ratio, 0.0, np.dtype("f4")))))
    model.graph.register_initializer(scale)
    factor = ir.node("Mul", [kept.outputs[0], scale])
    product = ir.node("Mul", [x, factor.outputs[0]])
    model.graph.insert_before(node, [equal, ones])
    model.graph.insert_after(node, [kept, factor, product])
    node.replace_input_with(0, ones.outputs[0])
    y, product_y = node.outputs[0], product.outputs[0]
    product_y.name, product_y.type, product_y.shape = "y", y.type, y.shape
    model.graph.outputs[0] = product_y
    y.name = "ones_dropped"
    got, mask = gradient(with_loss(model), native.get_library_path())
    np.testing.assert_array_equal(mask, recorded_mask(axes, ratio))
    assert_pytorchs(got, mask, axes, ratio)
