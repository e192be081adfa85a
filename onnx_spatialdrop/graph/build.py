"""The nodes that stand for one SpatialDropout node: their names, and the tags that let passes/fuse.py undo the work."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.operator import spec

__all__ = ["ATTRIBUTES_KEY", "MASK_KEY", "NODE_KEY", "NodeBuilder", "tags"]

#: metadata_props of every new node: the name of the node it stands for, and that node's attributes as JSON.
NODE_KEY: Final = "onnx_spatialdrop.node"
ATTRIBUTES_KEY: Final = "onnx_spatialdrop.attributes"
#: The same, in the form "mask-inputs": the name of the graph input that is the mask.
MASK_KEY: Final = "onnx_spatialdrop.mask_input"

_OWN: Final = "onnx_spatialdrop."


def tags(name: str, attributes: spec.Attributes, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a group: floats are written so that reading them gives the same float32.

    Args:
        name: the name of the node that the group stands for.
        attributes: its attributes.
        metadata: its own metadata; what is ours of it is passed on: the layer that it was.
    """
    kept = {key: getattr(attributes, key) for key in ("axes", "ratio", "rng", "scale", "seed", "strata")}
    own = {key: value for key, value in metadata.items() if key.startswith(_OWN)}
    return {**own, NODE_KEY: name, ATTRIBUTES_KEY: json.dumps(kept, sort_keys=True)}


class NodeBuilder:
    """Nodes under construction, named after their roles: ``y/uniform/mask``.

    Attributes:
        prefix: what all names begin with; unique in the model.
        nodes: the nodes so far, in topological order.
    """

    def __init__(self, prefix: str, metadata: dict[str, str]) -> None:
        self.prefix = prefix
        self.nodes: list[ir.Node] = []
        self._metadata = metadata

    def outputs(
        self, op_type: str, inputs: Sequence[ir.Value | None], roles: Sequence[str], **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """Append a node of ONNX's default domain and return its outputs, one a role; it is named by the first."""
        node = ir.Node(
            "",
            op_type,
            inputs,
            [_attribute(name, value) for name, value in attributes.items() if value is not None],
            outputs=[ir.Value(name=f"{self.prefix}/{role}") for role in roles],
            name=f"{self.prefix}/{roles[0]}",
            metadata_props=dict(self._metadata),
        )
        self.nodes.append(node)
        return tuple(node.outputs)

    def add(self, op_type: str, *inputs: ir.Value | None, role: str, **attributes: Any) -> ir.Value:
        """Append a node of ONNX's default domain with one output, and return that."""
        return self.outputs(op_type, inputs, [role], **attributes)[0]

    def constant(self, array: npt.NDArray[Any] | np.generic, role: str) -> ir.Value:
        """Append a Constant (an initializer is no option inside a function) and return its value."""
        tensor = ir.Tensor(np.asarray(array), name=f"{self.prefix}/{role}")
        value = self.add("Constant", role=role, value=tensor)
        value.const_value = tensor
        return value

    def keep_only(self, results: Sequence[ir.Value]) -> None:
        """Drop the nodes that none of ``results`` needs."""
        kept = []
        for node in reversed(self.nodes):
            if any(value.uses() or value in results for value in node.outputs):
                kept.append(node)
            else:
                _disconnect(node)
        self.nodes[:] = reversed(kept)

    def discard(self) -> None:
        """Give up the nodes, so that the values they read know nothing of them."""
        for node in self.nodes:
            _disconnect(node)
        self.nodes.clear()


def _attribute(name: str, value: Any) -> ir.Attr:
    # onnx_ir finds out what a tensor or a list is by protocols, which took a third of the time of a pass.
    if isinstance(value, ir.Attr):
        return value
    if isinstance(value, ir.Tensor):
        return ir.AttrTensor(name, value)
    return ir.AttrInt64s(name, value) if isinstance(value, list) else ir.convenience.convert_attribute(name, value)


def _disconnect(node: ir.Node) -> None:
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
