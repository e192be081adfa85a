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
    """The shapes of values of the main graph and of its subgraphs, as onnx infers them.

    Args:
        model: any model, also with nodes that onnx does not know.
    """

    def __init__(self, model: ir.Model) -> None:
        proto = _without_weights(model)
        try:
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
            told: dict[str, bytes] = {}
            while _tell_states(proto.graph, {}, told):
                proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            proto = onnx.ModelProto()
        self._types: dict[ir.Graph, dict[str, onnx.TypeProto]] = {}
        self._read(model.graph, proto.graph)

    def _read(self, graph: ir.Graph, proto: onnx.GraphProto) -> None:
        self._types[graph] = {info.name: info.type for info in proto.value_info}
        inferred = {output: node for node in proto.node for output in node.output if output}
        for node in graph:
            twin = next((inferred[value.name or ""] for value in node.outputs if value.name in inferred), None)
            graphs = {} if twin is None else {each.name: each.g for each in twin.attribute if each.HasField("g")}
            for name in graphs.keys() & node.attributes.keys():
                self._read(node.attributes[name].as_graph(), graphs[name])

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the inferred type of the elements of ``value``; None where there is none."""
        type_ = self._type(value)
        return None if type_ is None or not type_.elem_type else ir.DataType(type_.elem_type)

    def __call__(self, value: ir.Value) -> ir.Shape | None:
        """Return the inferred shape of ``value``; None where there is none."""
        type_ = self._type(value)
        if type_ is None or not type_.HasField("shape"):
            return None
        return ir.Shape([_size(dim) for dim in type_.shape.dim])

    def _type(self, value: ir.Value) -> onnx.TypeProto.Tensor | None:
        node = value.producer()
        types = self._types.get(node.graph) if node is not None and isinstance(node.graph, ir.Graph) else None
        type_ = None if types is None else types.get(value.name or "")
        return None if type_ is None else type_.tensor_type


def _tell_states(graph: onnx.GraphProto, outer: dict[str, onnx.TypeProto], told: dict[str, bytes]) -> bool:
    """Tell the shapes of states that Loops start with and do not change, which onnx leaves open.

    Args:
        graph: what onnx inferred; it is changed.
        outer: the types of values around it.
        told: what was told before, by the names of values; it is added to.

    Returns:
        Whether anything was told that was not before.
    """
    types = dict(outer)
    for info in (*graph.input, *graph.output, *graph.value_info):
        types[info.name] = info.type
    before = dict(told)
    for node in graph.node:
        for inner in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            _tell_states(inner, types, told)
            if node.op_type != "Loop" or node.domain:
                continue
            ends = {info.name: info.type for info in (*inner.output, *inner.value_info)}
            for output, start, end in zip(node.output, node.input[2:], inner.output[1:], strict=False):
                open_ = output not in types or not types[output].tensor_type.HasField("shape") or output in told
                kept = _unchanged(types[start], ends[end.name]) if output and open_ and start in types else None
                if kept is not None:
                    stale = next((info for info in graph.value_info if info.name == output), None)
                    (stale or graph.value_info.add(name=output)).type.CopyFrom(kept)
                    told[output] = kept.SerializeToString(deterministic=True)
    return told != before


def _unchanged(first: onnx.TypeProto, last: onnx.TypeProto) -> onnx.TypeProto | None:
    """Return the type of a state that is ``first`` before a Loop and ``last`` after each turn; None for two ranks."""
    kept = onnx.TypeProto()
    kept.CopyFrom(first)
    both = first.tensor_type, last.tensor_type
    if not all(each.HasField("shape") for each in both) or len(both[0].shape.dim) != len(both[1].shape.dim):
        return None
    for dim, other in zip(kept.tensor_type.shape.dim, last.tensor_type.shape.dim, strict=True):
        if dim != other:
            dim.Clear()
    return kept


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
        if model.ir_version >= 4 or value.name not in model.graph.initializers:
            graph.input.append(ir.serde.serialize_value(value))
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        small = array_of(value, overridable=True) if tensor.size <= _SMALL else None
        if small is not None:
            graph.initializer.append(onnx.numpy_helper.from_array(small, name))
        elif not value.is_graph_input() or model.ir_version < 4:
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
