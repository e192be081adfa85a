"""find on a ModelProto, whose nodes a survey has listed: what the node, its control inputs and value_info say.

It reads protobufs and no onnx_ir; what an ir.Model says is in find.py, and a test holds both to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from onnx_spatialdrop.graph.proto_infos import attributes_of
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.found import Found, drawn, plain
from onnx_spatialdrop.storage.survey import Block, Survey

__all__ = ["WANTED", "find_in"]

#: What a survey has to list for find_in.
WANTED: Final = frozenset({spec.OP_TYPE})
_DTYPES: Final[dict[int, str]] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
}


def find_in(survey: Survey, folder: str = "") -> list[Found]:
    """Return the SpatialDropout nodes of a model in the order of the file, subgraphs and functions included.

    Args:
        survey: the model.
        folder: where its external data is.

    Raises:
        SpecError: a node that the operator's definition does not allow.
    """
    roots = [_Scope(block, folder) for block in survey.blocks if block.outer is None]
    return [found for root in roots for found in root.found()]


class _Scope:
    """A block, with what it says of its values."""

    def __init__(self, block: Block, folder: str, outer: _Scope | None = None) -> None:
        self._block, self._folder, self._outer = block, folder, outer
        body: Any = block.body
        self._inputs: set[str] = set(body.input) if self._is_function else {value.name for value in body.input}
        self._outputs: set[str] = set(body.output) if self._is_function else {value.name for value in body.output}

    @property
    def _is_function(self) -> bool:
        return isinstance(self._block.body, onnx.FunctionProto)

    @cached_property
    def _types(self) -> dict[str, onnx.TypeProto]:
        body: Any = self._block.body
        values = [*body.value_info, *(() if self._is_function else (*body.input, *body.output))]
        found = {name: _type_of(tensor) for name, tensor in self._block.tensors.items()}
        return found | {value.name: value.type for value in values if value.HasField("type")}

    def found(self) -> Iterator[Found]:
        """Yield what is found in the block and in its subgraphs, in the order of the file."""
        for place, node in self._block.wanted:
            if node.domain == spec.DOMAIN and node.op_type == spec.OP_TYPE:
                yield self._one(place, node)
            for at, inner in self._block.inner:
                if at == place:
                    yield from _Scope(inner, self._folder, self).found()

    def _one(self, place: int, node: NodeProto) -> Found:
        names = self._block.reads[place]
        held = self._type(names[0]) if names else onnx.TypeProto.Tensor()
        dtype = _DTYPES.get(held.elem_type)
        attributes = attributes_of(node, None if dtype is None else spec.DTYPES[dtype])
        mask = (*self._block.makes[place], "")[1]
        return Found(
            name=node.name,
            **drawn(attributes),
            dtype=dtype,
            shape=tuple(map(_size, held.shape.dim)) if held.HasField("shape") else None,
            training_mode=self._controlled_by(names[1]),
            step=self._controlled_by(names[2]),
            scope=self._name(),
            mask_used=bool(mask) and (mask in self._outputs or self._block.is_read(mask)),
            source=node,
        )

    def _name(self) -> str:
        scope = self
        while scope._outer is not None:
            scope = scope._outer
        function = scope._block.body
        home = f"function {function.domain}::{function.name}" if isinstance(function, onnx.FunctionProto) else ""
        return home if scope is self else f"{home}/subgraph"

    def _home(self, name: str) -> _Scope:
        return self if name in self._block.defined or self._outer is None else self._outer._home(name)

    def _type(self, name: str) -> onnx.TypeProto.Tensor:
        """Return the type of a tensor; one that says nothing for what is none, or has none."""
        return self._home(name)._types.get(name, onnx.TypeProto()).tensor_type

    def _controlled_by(self, name: str) -> str:
        home = self._home(name)
        if name in home._inputs:
            default = home._held(name)
            return f"input {name}" if default is None else f"switch {name} ({plain(default)})"
        constant = home._constant(name)
        return f"computed by {name}" if constant is None else f"constant {plain(constant)}"

    def _held(self, name: str) -> np.ndarray | None:
        tensor = self._block.tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor, self._folder)

    def _constant(self, name: str) -> np.ndarray | None:
        held = self._held(name)
        if held is not None:
            return held
        place = self._block.makers.get(name)
        if place is None or self._block.op_types[place] != "Constant":
            return None
        for attribute in self._block.nodes[place].attribute:
            value = onnx.helper.get_attribute_value(attribute)
            if attribute.name.startswith("value") and not attribute.ref_attr_name:
                return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.array(value)
        return None


def _type_of(tensor: TensorProto) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
