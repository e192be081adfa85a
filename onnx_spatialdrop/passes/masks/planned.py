"""What the mask plan of a model is, for people: which nodes `expand` draws together, and why others are drawn alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.masks.plan import Group, plan

__all__ = ["PlannedGroup", "planned"]


@dataclass(frozen=True)
class PlannedGroup:
    """Nodes that share a generator in the form "philox".

    Attributes:
        nodes: their names.
        drawn: "side by side", where each has blocks of its own; "one after the other", where their masks have the same
            sizes; "alone"; or "not" where training_mode is constantly false.
        reason: why a node is drawn alone; "" elsewhere.
    """

    nodes: tuple[str, ...]
    drawn: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, in types that JSON has."""
        return asdict(self)


def planned(model: ir.Model) -> list[PlannedGroup]:
    """Return the groups of a model's nodes, in the order of the file; the model is not changed.

    Raises:
        SpecError: a node that the operator's definition does not allow.
    """
    sites = scopes.spatial_dropouts(model)
    known = input_types.known_inputs(model, sites)
    members, others = [], []
    for site, (kind, shape) in zip(sites, known, strict=True):
        rng, training = op.read(site.node).rng, controls.constant_of(site.node.inputs[1])
        if training is not None and not training.any():
            others.append(PlannedGroup((_name(site.node),), "not", "training_mode is constantly false"))
        elif rng != "philox":
            reason = f"rng {rng!r} draws by another generator, which is written out node by node"
            others.append(PlannedGroup((_name(site.node),), "alone", reason))
        else:
            members.append((site, kind, shape))
    return [_described(group) for group in plan(model, members)] + others


def _described(group: Group) -> PlannedGroup:
    names = tuple(_name(entry.site.node) for entry in group.entries)
    if len(names) == 1:
        return PlannedGroup(names, "alone", group.reason or "no other node has its switch, step and sizes")
    return PlannedGroup(names, "side by side" if group.tables else "one after the other", "")


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or ""
