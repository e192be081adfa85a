"""Shapes that a file lacks, from onnx's shape inference on a copy without weights. Never changes the model."""

from __future__ import annotations

from typing import Final

import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnx_spatialdrop.graph.constants import array_of

__all__ = ["Inferred"]

_SMALL: Final = 1024


class Inferred:
    """The shapes of the main graph's values, as onnx infers them.

    Args:
        model: any model, also with nodes that onnx does not know.
    """

    def __init__(self, model: ir.Model) -> None:
        proto = _without_weights(model)
        try:
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            proto = onnx.ModelProto()
        self._graph = model.graph
        self._types = {info.name: info.type for info in proto.graph.value_info}

    def __call__(self, value: ir.Value) -> ir.Shape | None:
        """Return the inferred shape of ``value``; None where there is none."""
        node = value.producer()
        if value.name not in self._types or node is None or node.graph is not self._graph:
            return None
        type_ = self._types[value.name]
        if not type_.tensor_type.HasField("shape"):
            return None
        return ir.Shape([_size(dim) for dim in type_.tensor_type.shape.dim])


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
    graph = proto.graph
    graph.name = "graph"
    for value in model.graph.inputs:
        graph.input.append(ir.serde.serialize_value(value))
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        small = array_of(value, overridable=True) if tensor.size <= _SMALL else None
        if small is not None:
            graph.initializer.append(onnx.numpy_helper.from_array(small, name))
        elif not value.is_graph_input():
            graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), list(tensor.shape.numpy())))
    for node in model.graph:
        graph.node.extend(_nodes(node))
    for value in model.graph.outputs:
        # The types only: a declared shape would hide that the inferred one differs.
        graph.output.append(ir.serde.serialize_value(value))
    return proto


def _nodes(node: ir.Node) -> list[onnx.NodeProto]:
    """Return ``node``; for TensorFlow's stateless generator, which onnx does not know, nodes of the same shape."""
    if not node.op_type.startswith("StatelessRandomUniform"):
        return [ir.serde.serialize_node(node)]
    shape, output = node.inputs[0], node.outputs[0].name or ""
    name = "" if shape is None else shape.name or ""
    cast = onnx.helper.make_node("Cast", [name], [f"{output}/shape"], to=onnx.TensorProto.INT64)
    return [cast, onnx.helper.make_node("ConstantOfShape", [f"{output}/shape"], [output])]
