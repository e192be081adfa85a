"""The rules of check that look at one node each. Every rule cites what was measured; none changes anything.

A rule is a function of a node and where it stands; it returns the message, or "" where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.analysis.sources import switched_off
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.expand.targets import TARGETS

__all__ = ["RULES", "Rule", "Where"]

_RANDOM: Final = frozenset({"RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "Multinomial"})
_SEEDED: Final = _RANDOM | {"Bernoulli", "Dropout"}
#: ONNX Runtime's CPU provider has the ops of _RANDOM up to this opset (onnxruntime #32201 is open).
_LAST_CPU_OPSET: Final = 21
#: Domains whose ops runtimes bring along; all others need a function in the file or a registered library.
_BROUGHT_ALONG: Final = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "ai.onnx.contrib")


@dataclass(frozen=True)
class Where:
    """Where a node stands.

    Attributes:
        opset: the version of ONNX's default domain there.
        in_if: an If holds the node, at whatever depth.
        model: the whole model.
        constants: what is known to be constant.
        shapes: what is known of shapes.
    """

    opset: int
    in_if: bool
    model: ir.Model
    constants: Constants
    shapes: Shapes


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: its name in docs/check.md.
        fix: what to do about a finding.
        find: returns the message.
        own: for which targets nodes of this package's own, SpatialDropout and what expand makes of it, are asked about,
            too, None standing for always: they are right where they are meant to run.
    """

    name: str
    fix: str
    find: Callable[[ir.Node, Where], str]
    own: frozenset[str] | None = None


def _standard(node: ir.Node, *op_types: str) -> bool:
    return node.domain == "" and node.op_type in op_types


def _deleted_dropout(node: ir.Node, where: Where) -> str:
    """ONNX Runtime's EliminateDropout, at its default level, does not look at training_mode."""
    if not _standard(node, "Dropout") or switched_off(node, where.opset, where.constants):
        return ""
    x, y = node.inputs[0], node.outputs[0]
    switch = node.inputs[2] if where.opset >= 12 and len(node.inputs) > 2 else None
    if x is None or x.is_graph_input() or y.is_graph_output() or (switch is not None and switch.is_graph_input()):
        return ""
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return ""
    return "ONNX Runtime deletes this Dropout although it is in training mode, since nothing reads its mask"


def _no_cpu_kernel(node: ir.Node, where: Where) -> str:
    if not _standard(node, *_RANDOM):
        return ""
    if where.opset > _LAST_CPU_OPSET:
        return f"ONNX Runtime's CPU provider has no {node.op_type} at opset {where.opset}, only up to {_LAST_CPU_OPSET}"
    code = node.attributes.get_int("dtype", 0)
    if code in (int(ir.DataType.FLOAT16), int(ir.DataType.BFLOAT16)):
        return f"ONNX Runtime's CPU provider has no {node.op_type} of type {ir.DataType(code).name}"
    return ""


def _bernoulli(node: ir.Node, where: Where) -> str:
    if not _standard(node, "Bernoulli"):
        return ""
    probability = where.constants.number(node.inputs[0])
    given = f"{1 - float(probability):g} where it should be {float(probability):g}" if probability is not None else ""
    return "ONNX Runtime's Bernoulli is inverted: it gives 1 with probability " + (given or "1 - p")


def _frozen_by_tools(node: ir.Node, where: Where) -> str:
    if _standard(node, "RandomUniform", "RandomNormal"):
        return f"onnxslim and onnx-graphsurgeon take {node.op_type} for a constant and freeze it"
    if _standard(node, "RandomUniformLike", "RandomNormalLike") and node.inputs[0] is not None:
        dims = where.shapes.of(node.inputs[0])
        if isinstance(dims, tuple) and all(where.shapes.number(dim) is not None for dim in dims):
            return f"onnxslim takes {node.op_type} of a static shape for a constant and freezes it"
    if _standard(node, "Bernoulli", "Dropout") and where.constants.number(node.inputs[0]) is not None:
        if node.op_type == "Dropout" and switched_off(node, where.opset, where.constants):
            return ""
        if _is_foldable(node.inputs[0]):
            return f"onnxscript's optimizer takes {node.op_type} of a constant for a constant and freezes it"
    return ""


def _is_foldable(value: ir.Value | None, depth: int = 8) -> bool:
    """Return whether only constants lead to ``value``, so that constant folding reaches it."""
    if value is None or value.is_initializer():
        return True
    node = value.producer()
    if node is None or depth == 0:
        return False
    return all(_is_foldable(operand, depth - 1) for operand in node.inputs)


def _float_seed(node: ir.Node, _: Where) -> str:
    attribute = node.attributes.get("seed")
    if not _standard(node, *_SEEDED) or attribute is None or attribute.type != ir.AttributeType.FLOAT:
        return ""
    seed = attribute.as_float()
    if seed != int(seed):
        return f"the seed {seed:g} is a float that runtimes cut off to {int(seed)}"
    if abs(seed) >= 2**24:
        return f"the seed {seed:.0f} is a float, which from 2**24 on cannot tell a seed from its neighbours"
    return ""


def _in_if(node: ir.Node, where: Where) -> str:
    random = _standard(node, *_SEEDED) and not (
        node.op_type == "Dropout" and switched_off(node, where.opset, where.constants)
    )
    if not where.in_if or not (random or op.is_spatial_dropout(node)):
        return ""
    return "a random op inside If: unseeded ones draw the same numbers in ONNX Runtime, and trainers abort on If"


def _lost_function(node: ir.Node, where: Where) -> str:
    if node.domain in _BROUGHT_ALONG or node.domain.startswith("com."):
        return ""
    if node.op_identifier() in where.model.functions:
        return ""
    if op.is_spatial_dropout(node):
        return "the file has no function body for SpatialDropout (some converters drop functions); it needs a kernel"
    return f"the file has no function {node.domain}::{node.op_type}; a converter may have dropped it"


def _training_batchnorm(node: ir.Node, where: Where) -> str:
    if not _standard(node, "BatchNormalization"):
        return ""
    if where.opset >= 14:
        training = node.attributes.get_int("training_mode", 0) != 0
    elif where.opset >= 7:  # outputs beyond Y are what training computes
        training = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    else:
        training = node.attributes.get_int("is_test", 0) == 0
    return "BatchNormalization in training mode: each result depends on all samples of the batch" if training else ""


def _bad_node(node: ir.Node, _: Where) -> str:
    if not op.is_spatial_dropout(node):
        return ""
    try:
        op.read(node)
    except SpecError as error:
        return str(error)
    return ""


RULES: Final = (
    Rule(
        "deleted-dropout",
        "fuse(model, elementwise=True), or read the mask, or disable EliminateDropout",
        _deleted_dropout,
    ),
    Rule("no-cpu-kernel", "fuse(model), or export at opset 21 or below", _no_cpu_kernel),
    Rule("inverted-bernoulli", "fuse(model, bernoulli=True), or export rand(...) < p in its place", _bernoulli),
    Rule("training-batchnorm", "to_inference(model), or export in eval mode", _training_batchnorm),
    Rule("foldable-source", "fuse(model) before optimising", _frozen_by_tools, frozenset({"onnxslim", "onnxscript"})),
    Rule("float-seed", "fuse(model): seeds become 64-bit integers", _float_seed, frozenset()),
    Rule(
        "random-in-if",
        "move the node out of the If, or fuse(model) and feed step",
        _in_if,
        frozenset({"tract", "onnxruntime-training"}),
    ),
    Rule(
        "lost-function",
        "attach(model), or bring the function back after converting",
        _lost_function,
        frozenset(TARGETS),
    ),
    Rule("bad-node", "write the node with spatial_dropout()", _bad_node),
)
