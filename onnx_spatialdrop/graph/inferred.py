"""The shapes that nodes compute, as they follow from the graph's inputs. Never changes the model, nor reads weights.

What a file says of such shapes may be out of date: whoever opens a fixed batch changes the inputs, and what stands
between them and the outputs stays as it was. So a size is one that onnx infers from the inputs, on a copy of the model
that says nothing else of shapes. The file is believed where onnx infers nothing at all, of ranks; and of the sizes of
the main graph only where every size of every input is a number, and nothing else that it says contradicts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnx_spatialdrop.graph.constants import array_of

__all__ = ["Inferred"]

_SMALL: Final = 1024
#: How onnx begins the names that it makes up; one of them means the same wherever it stands.
_MADE_UP: Final = "unk__"

#: The types of a graph's values, by name.
_Types = dict[str, onnx.TypeProto]
#: Where a Loop's state is: the places of nodes and attributes on the way there.
_Path = tuple[int, ...]


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
    def _types(self) -> dict[ir.Graph, _Types]:
        try:
            proto = _settled(_bare(self._model))
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
                if not isinstance(dim, int) and dim.value is not None and dim.value.startswith(_MADE_UP):
                    found.setdefault(dim.value, (value, axis))
        return found


def _agree(told: ir.Shape | None, inferred: ir.Shape | None) -> bool:
    if told is None or inferred is None:
        return True
    pairs = zip(told, inferred, strict=False)
    return len(told) == len(inferred) and all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _read(graph: ir.Graph, proto: onnx.GraphProto) -> Iterator[tuple[ir.Graph, _Types]]:
    """Yield the types of a graph and of its subgraphs, whose protobuf has been inferred."""
    yield graph, _types_of(proto)
    inferred = {output: node for node in proto.node for output in node.output if output}
    for node in graph:
        twin = next((inferred[value.name or ""] for value in node.outputs if value.name in inferred), None)
        graphs = {} if twin is None else {each.name: each.g for each in twin.attribute if each.HasField("g")}
        for name in graphs.keys() & node.attributes.keys():
            yield from _read(node.attributes[name].as_graph(), graphs[name])


def _types_of(graph: onnx.GraphProto) -> _Types:
    types = {
        tensor.name: onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims) for tensor in graph.initializer
    }
    return types | {info.name: info.type for infos in (graph.input, graph.output, graph.value_info) for info in infos}


def _settled(bare: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with what onnx infers, also of states that Loops carry, of which onnx says no shape.

    A state has the shape that it starts with if each turn leaves it as it was. So that is assumed, and taken back size
    by size where what is inferred from it is something else, until nothing is: then it holds, by induction.
    """
    assumed = set[_Path]()
    while True:
        proto = onnx.shape_inference.infer_shapes(bare, data_prop=True)
        if not _assume(bare.graph, proto.graph, {}, (), assumed):
            return proto


def _assume(bare: onnx.GraphProto, inferred: onnx.GraphProto, outer: _Types, path: _Path, assumed: set[_Path]) -> bool:
    """Write into ``bare`` what shapes its Loops' states may have, as far as nothing speaks against it yet.

    Args:
        bare: the graph that is inferred.
        inferred: what came of it.
        outer: the types of values around it.
        path: where it is.
        assumed: the states of which something was assumed before; it is added to.

    Returns:
        Whether anything is assumed that was not before, or not any more.
    """
    types, changed = outer | _types_of(inferred), False
    for place, (node, twin) in enumerate(zip(bare.node, inferred.node, strict=True)):
        for index, (one, two) in enumerate(zip(node.attribute, twin.attribute, strict=True)):
            if not one.HasField("g"):
                continue
            changed |= _assume(one.g, two.g, types, (*path, place, index), assumed)
            if node.op_type != "Loop" or node.domain:
                continue
            ends = types | _types_of(two.g)
            states = zip(node.input[2:], one.g.input[2:], two.g.output[1:], node.output, strict=False)
            for number, (start, state, end, result) in enumerate(states):
                here, before = (*path, place, number), state.type.SerializeToString(deterministic=True)
                first = types.get(start)
                if here in assumed:
                    _keep(state.type, [first, ends.get(end.name)])
                elif first is not None and first.tensor_type.HasField("shape"):
                    state.type.CopyFrom(first)
                    _keep(state.type, [first])
                    assumed.add(here)
                if state.type.SerializeToString(deterministic=True) != before:
                    changed = True
                    if result:
                        _tell(bare, result, state.type)
    return changed


def _keep(type_: onnx.TypeProto, others: Iterable[onnx.TypeProto | None]) -> None:
    """Take back the sizes of a tensor that others do not have, and those whose names are made up."""
    shape = type_.tensor_type.shape
    for other in others:
        known = other is not None and other.HasField("tensor_type") and other.tensor_type.HasField("shape")
        if other is None or not known or len(other.tensor_type.shape.dim) != len(shape.dim):
            type_.tensor_type.ClearField("shape")
            return
        for dim, theirs in zip(shape.dim, other.tensor_type.shape.dim, strict=True):
            if dim != theirs or dim.dim_param.startswith(_MADE_UP):
                dim.Clear()


def _tell(graph: onnx.GraphProto, name: str, type_: onnx.TypeProto) -> None:
    """Say of a value of ``graph`` what type it has."""
    found = [info for info in (*graph.output, *graph.value_info) if info.name == name]
    for info in found or [graph.value_info.add(name=name)]:
        info.type.CopyFrom(type_)


def _bare(model: ir.Model) -> onnx.ModelProto:
    """Return the model without large weights, and without what it says of shapes but for its inputs."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
        proto.functions[-1].ClearField("value_info")
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
    for output in graph.output:
        _forget(output)
    for node in graph.node:
        _forget_inside(node)
    return proto


def _forget(info: onnx.ValueInfoProto) -> None:
    if info.type.HasField("tensor_type"):
        info.type.tensor_type.ClearField("shape")


def _forget_inside(node: onnx.NodeProto) -> None:
    """Take back what the graphs in a node say of shapes."""
    for graph in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
        graph.ClearField("value_info")
        for info in (*graph.input, *graph.output):
            _forget(info)
        for inner in graph.node:
            _forget_inside(inner)


def _nodes(node: ir.Node) -> list[onnx.NodeProto]:
    """Return ``node``; for TensorFlow's stateless generator, which onnx does not know, nodes of the same shape."""
    if not node.op_type.startswith("StatelessRandomUniform"):
        return [ir.serde.serialize_node(node)]
    shape, output = node.inputs[0], node.outputs[0].name or ""
    name = "" if shape is None else shape.name or ""
    cast = onnx.helper.make_node("Cast", [name], [f"{output}/shape"], to=onnx.TensorProto.INT64)
    return [cast, onnx.helper.make_node("ConstantOfShape", [f"{output}/shape"], [output])]
