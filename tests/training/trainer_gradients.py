"""Gradients as onnxruntime-training builds them: the graph that the tests of its gradients run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.operator import node as op


def gradient(
    model: onnx.ModelProto, x: np.ndarray, weights: np.ndarray, library: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return d sum(weights * y * y) / 2 / d x of a model ``x -> y, mask``, and the mask."""
    import onnxruntime
    from onnxruntime.capi._pybind_state import GradientGraphBuilder, get_optimized_model

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(str(library))
    proto = _with_loss(model, weights.shape)
    optimized = get_optimized_model(proto.SerializeToString(), {"x"}, options)
    builder = GradientGraphBuilder(optimized, {"loss"}, {"x"}, "loss", options)
    builder.build()
    session = onnxruntime.InferenceSession(builder.get_model(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": x.astype(np.float32), "weights": weights.astype(np.float32)}
    feeds |= {each.name: np.ones((), np.float32) for each in session.get_inputs() if each.name == "loss_grad"}
    names = [each.name for each in session.get_outputs()]
    results = dict(zip(names, session.run(None, feeds), strict=True))
    return results["x_grad"], results["mask"]


def _with_loss(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    proto.ir_version = 10
    proto.graph.input.append(onnx.helper.make_tensor_value_info("weights", 1, shape))
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


def through_the_mask(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Let the one node of a model draw its mask from ones that no gradient flows through, and multiply x by that.

    The op has no gradient of its own, and Mul has one.
    """
    model = ir.from_proto(proto)
    (site,) = scopes.spatial_dropouts(model)
    node, x = site.node, model.graph.inputs[0]
    equal = ir.node("Equal", [x, x])
    ones = ir.node("Cast", equal.outputs, {"to": ir.DataType.FLOAT})
    kept = ir.node("Cast", [node.outputs[1]], {"to": ir.DataType.FLOAT})
    scale = ir.Value(name="scale", const_value=ir.tensor(np.float32(op.read(node).scale)))
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
    return ir.to_proto(model)
