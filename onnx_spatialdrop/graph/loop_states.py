"""onnx's shape inference on a ModelProto, and the shapes of states that Loops carry, of which onnx says nothing."""

from __future__ import annotations

from typing import Final

import onnx
import onnx.shape_inference

__all__ = ["Types", "infer", "is_made_up", "types_of"]

_MADE_UP: Final = "unk__"

#: The types of a graph's values, by name.
Types = dict[str, onnx.TypeProto]
#: Where a Loop's state is: the places of nodes and attributes on the way there.
_Path = tuple[int, ...]
#: A graph as the file has it; without what it says of shapes, which is inferred and written to; and what came of that.
_Graphs = tuple[onnx.GraphProto, onnx.GraphProto, onnx.GraphProto]


def is_made_up(name: str | int | None) -> bool:
    """Return whether onnx made up the name of a size; it means the same wherever it stands, but not what it is."""
    return isinstance(name, str) and name.startswith(_MADE_UP)


def infer(told: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the shapes that follow from its inputs, and from nothing else that it says.

    A Loop's state has the shape that it starts with if each turn leaves it as it was. So that is assumed, and taken
    back size by size where what is inferred from it is another, until nothing is: then it holds, by induction. Where
    nothing is inferred, the file's word counts if it is that the state has the size that it starts with.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(told)
    bare.graph.ClearField("value_info")
    for output in bare.graph.output:
        _forget(output)
    for function in bare.functions:
        function.ClearField("value_info")
    for node in bare.graph.node:
        _forget_inside(node)
    assumed = set[_Path]()
    while True:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
        graphs = told.graph, bare.graph, inferred.graph
        # A state that starts with an open size waits for others, which may tell it.
        if not any(_assume(graphs, {}, (), assumed, even_open) for even_open in (False, True)):
            return inferred


def types_of(graph: onnx.GraphProto) -> Types:
    """Return what a graph says of its values' types."""
    tensors = ((each.name, each.data_type, each.dims) for each in graph.initializer)
    types = {name: onnx.helper.make_tensor_type_proto(kind, dims) for name, kind, dims in tensors}
    return types | {info.name: info.type for infos in (graph.input, graph.output, graph.value_info) for info in infos}


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


def _assume(graphs: _Graphs, outer: Types, path: _Path, assumed: set[_Path], even_open: bool) -> bool:
    """Write what shapes Loops' states may have, as far as nothing speaks against it yet.

    Args:
        graphs: the graph.
        outer: the types of values around it.
        path: where it is.
        assumed: the states of which something was assumed before; it is added to.
        even_open: assume something of states, too, of which not every size is known that they start with.

    Returns:
        Whether anything is assumed that was not before, or not any more.
    """
    types, changed = outer | types_of(graphs[2]), False
    for place, nodes in enumerate(zip(*(graph.node for graph in graphs), strict=True)):
        for index, held in enumerate(zip(*(node.attribute for node in nodes), strict=True)):
            if not held[0].HasField("g"):
                continue
            bodies = held[0].g, held[1].g, held[2].g
            changed |= _assume(bodies, types, (*path, place, index), assumed, even_open)
            if nodes[0].op_type == "Loop" and not nodes[0].domain:
                changed |= _assume_states(nodes[0], bodies, graphs[1], types, (*path, place), assumed, even_open)
    return changed


def _assume_states(
    loop: onnx.NodeProto,
    bodies: _Graphs,
    around: onnx.GraphProto,
    types: Types,
    path: _Path,
    assumed: set[_Path],
    even_open: bool,
) -> bool:
    told, bare, inferred = bodies
    ends, changed = types | types_of(inferred), False
    states = zip(loop.input[2:], told.input[2:], bare.input[2:], inferred.output[1:], loop.output, strict=False)
    for number, (start, said, state, end, result) in enumerate(states):
        here, before = (*path, number), state.type.SerializeToString(deterministic=True)
        first = types.get(start, onnx.TypeProto())
        if here in assumed:
            _keep(state.type, first, onnx.TypeProto())
            _keep(state.type, ends.get(end.name, onnx.TypeProto()), said.type)
        elif first.tensor_type.HasField("shape") and (even_open or not any(map(_is_open, first.tensor_type.shape.dim))):
            state.type.CopyFrom(first)
            assumed.add(here)
        if state.type.SerializeToString(deterministic=True) != before:
            changed = True
            if result:
                _tell(around, result, state.type)
    return changed


def _keep(state: onnx.TypeProto, other: onnx.TypeProto, word: onnx.TypeProto) -> None:
    """Take back the sizes of a state that another type does not have; where it has none, ``word`` counts."""
    if not state.tensor_type.HasField("shape"):
        return
    shape = state.tensor_type.shape
    known = other if other.tensor_type.HasField("shape") else word
    if not known.tensor_type.HasField("shape") or len(known.tensor_type.shape.dim) != len(shape.dim):
        state.tensor_type.ClearField("shape")
        return
    said = word.tensor_type.shape.dim if len(word.tensor_type.shape.dim) == len(shape.dim) else shape.dim[:0]
    for axis, (dim, theirs) in enumerate(zip(shape.dim, known.tensor_type.shape.dim, strict=True)):
        if is_made_up(dim.dim_param) or dim != (said[axis] if said and _is_open(theirs) else theirs):
            dim.Clear()


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return not dim.HasField("dim_value") and (not dim.dim_param or is_made_up(dim.dim_param))


def _tell(graph: onnx.GraphProto, name: str, type_: onnx.TypeProto) -> None:
    """Say of the value of a name what type it has."""
    found = [info for info in (*graph.output, *graph.value_info) if info.name == name]
    for info in found or [graph.value_info.add(name=name)]:
        info.type.CopyFrom(type_)
