"""The shapes that nodes compute, as they follow from the graph's inputs. Never changes the model, nor reads weights.

What a file says of such shapes may be out of date: whoever opens a fixed batch changes the inputs, and what stands
between them and the outputs stays as it was. So a size is one that onnx infers from the inputs, on a copy of the model
that says nothing else of shapes. The file is believed where onnx infers nothing at all, of ranks; and of the sizes of
the main graph only where every size of every input is a number, and nothing else that it says contradicts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnx_spatialdrop.graph import loop_states
from onnx_spatialdrop.graph.constants import array_of
from onnx_spatialdrop.graph.loop_states import Types, is_made_up

__all__ = ["Inferred"]

_SMALL: Final = 1024


class Inferred:
    """The types and shapes of a model's values, inferred when they are first asked for.

    Args:
        model: any model, also with nodes that onnx does not know.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the inferred type of the elements of ``value``; None where there is none."""
        type_ = self._type(value)
        return None if type_ is None or not type_.elem_type else ir.DataType(type_.elem_type)

    def __call__(self, value: ir.Value) -> ir.Shape | None:
        """Return the shape that ``value`` is known to have; None where its rank is not known."""
        if value.graph is self._model.graph and value.is_graph_input():
            return value.shape
        if value.const_value is not None:
            return ir.Shape(value.const_value.shape.numpy())
        inferred = self._inferred(value)
        if inferred is not None or value.shape is None:
            return inferred
        believed = value.graph is self._model.graph and self._is_believed
        return value.shape if believed else ir.Shape([None] * len(value.shape))

    def first(self, name: str) -> tuple[ir.Value, int] | None:
        """Return the value and axis where a size first occurs whose name onnx has made up; None for other names."""
        return self._made_up.get(name)

    def _inferred(self, value: ir.Value) -> ir.Shape | None:
        type_ = self._type(value)
        if type_ is None or not type_.HasField("shape"):
            return None
        return ir.Shape([_size(dim) for dim in type_.shape.dim])

    def _type(self, value: ir.Value) -> onnx.TypeProto.Tensor | None:
        graph = value.graph
        types = self._types.get(graph) if isinstance(graph, ir.Graph) else None
        type_ = None if types is None else types.get(value.name or "")
        return None if type_ is None else type_.tensor_type

    @cached_property
    def _types(self) -> dict[ir.Graph, Types]:
        try:
            proto = loop_states.infer(_light(self._model))
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return {}
        return dict(_read(self._model.graph, proto.graph))

    @cached_property
    def _is_believed(self) -> bool:
        graph = self._model.graph
        if any(value.shape is None or not value.shape.is_static() for value in graph.inputs):
            return False
        return all(_agree(value.shape, self._inferred(value)) for node in graph for value in node.outputs)

    @cached_property
    def _made_up(self) -> dict[str, tuple[ir.Value, int]]:
        found: dict[str, tuple[ir.Value, int]] = {}
        for value in (value for node in self._model.graph for value in node.outputs):
            for axis, dim in enumerate(self._inferred(value) or ()):
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None and is_made_up(dim.value):
                    found.setdefault(dim.value, (value, axis))
        return found


def _agree(told: ir.Shape | None, inferred: ir.Shape | None) -> bool:
    if told is None or inferred is None:
        return True
    pairs = zip(told, inferred, strict=False)
    return len(told) == len(inferred) and all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _read(graph: ir.Graph, proto: onnx.GraphProto) -> Iterator[tuple[ir.Graph, Types]]:
    """Yield the types of a graph and of its subgraphs, whose protobuf has been inferred."""
    yield graph, loop_states.types_of(proto)
    inferred = {output: node for node in proto.node for output in node.output if output}
    for node in graph:
        twin = next((inferred[value.name or ""] for value in node.outputs if value.name in inferred), None)
        graphs = {} if twin is None else {each.name: each.g for each in twin.attribute if each.HasField("g")}
        for name in graphs.keys() & node.attributes.keys():
            yield from _read(node.attributes[name].as_graph(), graphs[name])


def _light(model: ir.Model) -> onnx.ModelProto:
    """Return the model without large weights."""
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
