"""What to_inference leaves that draws or is in training mode, and whether somebody has to look at it. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.operator.node import describe
from onnx_spatialdrop.passes.fuse.report import Record
from onnx_spatialdrop.passes.switch_off import training_batch_norms
from onnx_spatialdrop.passes.training_forms import DROPOUT, is_unread_dropout, may_be_random

__all__ = ["Leftover", "findings", "leftovers", "listed", "unproven_masks"]

#: What makes two values of a draw.
_THRESHOLDS: Final = frozenset(
    {"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Floor", "Ceil", "Round", "Sign", "Bernoulli", "Equal"}
)
#: Where a mask meets data.
_PRODUCTS: Final = frozenset({"Mul", "Div", "Where"})
_REASON: Final = "what it draws makes a mask, which could not be proven to be dropout"


@dataclass(frozen=True)
class Leftover:
    """One node, or one constant mask, that is still there.

    Attributes:
        name: the node's name, or what it is described by.
        op_type: its operator; "" for a mask frozen into a constant.
        reason: why it is still there.
        is_finding: it may be dropout, or is in training mode; else it is noise that is the model.
    """

    name: str
    op_type: str
    reason: str
    is_finding: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the record in types that JSON has."""
        return dict(self.__dict__)

    def __str__(self) -> str:
        return f"{self.name!r}{f' ({self.op_type})' if self.op_type else ''}: {self.reason}"


def leftovers(model: ir.Model, refused: Iterable[Record]) -> list[Leftover]:
    """Return what is left in a model that to_inference has gone through.

    1. A node that draws, and whose draw a threshold makes a mask that meets data, is a finding: it may be dropout.
    2. So are Dropout nodes, operators of unknown domains that are dropout by their names, batch normalizations in
       training mode, masks frozen into constants, and draws of the operator's bits that could not be verified.
    3. Any other node that draws is noise that is the model, as in a variational autoencoder or a sampler.

    Args:
        model: the model.
        refused: what fuse left alone, and why.
    """
    reasons = {record.name: record.reason for record in refused}
    left: list[Leftover] = []
    for scope in scopes.foreign_scopes(model):
        for node in scope.all_nodes():
            name = node.name or describe(node)
            if node.op_identifier() in model.functions:
                continue
            if is_unread_dropout(node.domain, node.op_type):
                reason = f"nobody here knows the operator {node.domain}::{node.op_type}"
                left.append(Leftover(name, node.op_type, reason, True))
            elif node.domain == "" and node.op_type == DROPOUT:
                left.append(Leftover(name, node.op_type, reasons.get(name, "the type of its mask is unknown"), True))
            elif may_be_random(node.domain, node.op_type):
                masks = _makes_a_mask(node)
                reason = (reasons.get(name) or _REASON) if masks else "it is noise of the model"
                left.append(Leftover(name, node.op_type, reason, masks))
    for node, _ in training_batch_norms(model):
        reason = "its saved mean or variance is used, so that it stays in training mode"
        left.append(Leftover(node.name or describe(node), node.op_type, reason, True))
    there = {each.name for each in left}
    return left + [Leftover(r.name, "", r.reason, True) for r in refused if r.name not in there]


def unproven_masks(model: ir.Model, refused: Iterable[Record]) -> list[Leftover]:
    """Return the Dropout nodes that are on and whose mask something reads that is not proven to be part of dropout.

    Where that mask becomes true, what multiplies by it may go on to scale what is not dropped any more.
    """
    reasons, constants = {record.name: record.reason for record in refused}, Constants()
    found = []
    for scope in scopes.foreign_scopes(model):
        for node in scope.all_nodes():
            name, training = node.name or describe(node), node.inputs[2] if len(node.inputs) > 2 else None
            is_read = node.op_type == DROPOUT and node.domain == "" and any(mask.uses() for mask in node.outputs[1:])
            if is_read and training is not None and constants.number(training) != 0 and name in reasons:
                reason = f"its mask is true now, and what reads that is not proven to be dropout: {reasons[name]}"
                found.append(Leftover(name, node.op_type, reason, True))
    return found


def _makes_a_mask(node: ir.Node) -> bool:
    """Return whether a threshold makes two values of what a node draws, which then meet data in a product."""
    pending = [(output, node.op_type in _THRESHOLDS) for output in node.outputs]
    seen = set[tuple[ir.Value, bool]]()
    drawn = set[ir.Value]()
    while pending:
        value, is_mask = pending.pop()
        if (value, is_mask) in seen:
            continue
        seen.add((value, is_mask))
        drawn.add(value)
        for use in value.uses():
            reader = use.node
            if is_mask and reader.domain == "" and reader.op_type in _PRODUCTS:
                others = [other for other in reader.inputs if other is not None and other not in drawn]
                if not all(map(_is_constant, others)):
                    return True
            if reader.domain == "" and reader.outputs:
                pending += [(output, is_mask or reader.op_type in _THRESHOLDS) for output in reader.outputs]
    return False


def _is_constant(value: ir.Value) -> bool:
    node = value.producer()
    return value.const_value is not None or (node is not None and node.op_type in ("Constant", "ConstantOfShape"))


def findings(left: Iterable[Leftover]) -> list[Leftover]:
    """Return those that somebody has to look at."""
    return [each for each in left if each.is_finding]


def listed(left: Sequence[Leftover], most: int = 5) -> str:
    """Return one line that names them."""
    shown = "; ".join(str(each) for each in left[:most])
    return f"{shown}; and {len(left) - most} more" if len(left) > most else shown
