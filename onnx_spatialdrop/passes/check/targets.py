"""The rules of check for one runtime or optimiser that the file is meant for. docs/compatibility.md measures each.

Versions that were measured: OpenVINO 2026.4.1, tract 0.23.9, onnxruntime-node and -web 1.30.0, onnxslim 0.1.98, onnxsim
0.8.1, onnxscript 0.7.2, onnx 1.23.2, ONNX Runtime 1.20.1 to 1.31.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.analysis.sources import switched_off
from onnx_spatialdrop.graph.build import NODE_KEY
from onnx_spatialdrop.graph.controls import behind, is_switch
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.check.finding import Finding
from onnx_spatialdrop.passes.check.rules import Rule, Where
from onnx_spatialdrop.passes.expand import targets
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, STEP

__all__ = ["OPTIMIZERS", "PROVIDERS", "frozen_switches", "resolve", "rules_for"]

#: Tools that take a model and give a model; check knows them beside the targets of expand. "onnxruntime-offline" is the
#: file that ONNX Runtime writes when it is asked to save what it has optimised.
OPTIMIZERS: Final = ("onnxslim", "onnxsim", "onnxscript", "onnxoptimizer", "onnx-ir", "onnxruntime-offline")
#: ONNX Runtime's providers for other processors than the CPU: CUDA, TensorRT, DirectML, CoreML, OpenVINO.
PROVIDERS: Final = "onnxruntime-providers"
#: Those that take an input with a default for a constant.
_FREEZING: Final = targets.NO_DEFAULTS | targets.BATCHED | {"onnxslim", "onnxsim", PROVIDERS}
_DRAWS: Final = frozenset({"RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "Dropout"})


def resolve(target: str) -> str:
    """Return the name of a target of check, aliases replaced.

    Raises:
        FormError: an unknown target.
    """
    return targets.resolve(target, *OPTIMIZERS, PROVIDERS)


def frozen_switches(model: ir.Model, target: str) -> list[Finding]:
    """Return a finding for the inputs with a default, where ``target`` takes them for constants."""
    if target not in _FREEZING:
        return []
    names = tuple(value.name or "" for value in model.graph.inputs if is_switch(value) and value.uses())
    if not names:
        return []
    message = f"{target} takes an input that has a default for a constant, so that nobody can switch it"
    fix = "expand(model, defaults=False), or attach(model, defaults=False)"
    return [
        Finding("frozen-switch", names, message, f"expand(model{_for(target)})" if target in targets.BATCHED else fix)
    ]


def rules_for(target: str) -> tuple[Rule, ...]:
    """Return the rules for one target; none where nothing but what RULES finds can go wrong."""
    rules = []
    if target in targets.NO_FUNCTIONS or target in ("onnxslim", "onnxscript"):
        rules.append(Rule("unknown-function", f"expand(model{_for(target)})", _function(target)))
    if target in targets.NO_FUNCTIONS or target in ("onnxslim", "onnxscript"):
        rules.append(Rule("training-dropout", _DROPOUT_FIXES[target], _dropout(target)))
    if target == "onnxscript":
        rules.append(Rule("folded-if", "expand(model, defaults=False)", _folded_if))
    if target == "onnxslim":
        rules.append(
            Rule("empty-list", "expand(model, form='uniform', defaults=False), or optimise before", _empty_list)
        )
        rules.append(Rule("open-steps", _DROPOUT_FIXES[target], _open_steps))
    if target == "openvino":
        rules.append(Rule("wide-integers", "expand(model, target='openvino')", _wide))
    if target == "tract":
        rules.append(Rule("float16-gemm", "cast that layer to float32", _float16_gemm))
        rules.append(Rule("computed-shape", "expand(model, target='tract')", _computed_shape))
    if target == "reference":
        rules.append(Rule("repeated-draw", "expand(model, target='reference')", _repeated))
    if target == PROVIDERS:
        rules.append(Rule("cpu-node", "session(model, providers=...) draws all masks in one node", _cpu_node))
    if target == "onnxruntime-offline":
        rules.append(Rule("if-offline", "optimise when the session is made, or save at level basic", _if))
    return tuple(rules)


def _for(target: str) -> str:
    return f", target={target!r}" if target in targets.TARGETS else ""


_DROPOUT_FIXES: Final = {
    "openvino": "expand(model, target='openvino')",
    "tract": "expand(model, target='tract')",
    "onnxslim": "expand(model, form='uniform', defaults=False), or optimise before insert or fuse",
    "onnxscript": "expand(model, form='dropout', defaults=False)",
}


def _function(target: str) -> Callable[[ir.Node, Where], str]:
    def find(node: ir.Node, where: Where) -> str:
        if node.op_identifier() not in where.model.functions:
            return ""
        if target in targets.NO_FUNCTIONS:
            return f"{target} knows no functions of the model's own, such as {node.domain}::{node.op_type}"
        if not op.is_spatial_dropout(node):
            return ""
        return {
            "onnxslim": "onnxslim breaks the operator's function body",
            "onnxscript": "onnxscript's optimizer fails on the name of the generator in the operator's function body",
        }[target]

    return find


def _dropout(target: str) -> Callable[[ir.Node, Where], str]:
    def find(node: ir.Node, where: Where) -> str:
        if not _is(node, "Dropout") or switched_off(node, where.opset, where.constants):
            return ""
        if target == "onnxslim":
            if where.in_if:  # it does not look there
                return ""
            return "onnxslim deletes Dropout, although it is in training mode and its mask is read"
        if target != "onnxscript":
            return f"{target} cannot run a Dropout that is in training mode"
        switch = node.inputs[2] if len(node.inputs) > 2 else None
        if switch is None or not is_switch(switch):
            return ""
        return f"onnxscript's optimizer deletes a Dropout whose switch, {switch.name!r}, is false by default"

    return find


def _is(node: ir.Node, *op_types: str) -> bool:
    return node.domain == "" and node.op_type in op_types


def _empty_list(node: ir.Node, _: Where) -> str:
    kinds = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)
    empty = [
        key for key, each in node.attributes.items() if each.type in kinds and not each.is_ref() and not each.value
    ]
    return (
        f"onnxslim stops at the empty list {empty[0]!r}: it takes an empty list for one without a type" if empty else ""
    )


def _open_steps(node: ir.Node, _: Where) -> str:
    if not _is(node, "Equal") or GENERATOR_KEY not in node.metadata_props:
        return ""
    return "onnxslim takes an open number of steps for more than one, so that a run with one step draws other masks"


def _wide(node: ir.Node, _: Where) -> str:
    if not _is(node, "Cast") or node.attributes.get_int("to", 0) != int(ir.DataType.UINT64):
        return ""
    return "OpenVINO's CPU cuts 64-bit integers to 32 bits, so that words of 64 bits come out wrong"


def _float16_gemm(node: ir.Node, _: Where) -> str:
    x = node.inputs[0] if node.inputs else None
    if not _is(node, "Gemm") or x is None or all(v.dtype != ir.DataType.FLOAT16 for v in node.inputs if v is not None):
        return ""
    return "tract cannot load a Gemm in float16"


def _computed_shape(node: ir.Node, _: Where) -> str:
    # The nodes of these forms that are left out where they are written for tract.
    one_by_one = _is(node, "ReduceProd") and NODE_KEY in node.metadata_props
    source = node.inputs[0].producer() if _is(node, "Shape") and node.inputs and node.inputs[0] is not None else None
    makers = (node, source) if source is not None else (node,) if _is(node, "Shape") else ()
    counted = any(maker.metadata_props.get(GENERATOR_KEY) == STEP for maker in makers)
    if not one_by_one and not counted:
        return ""
    return "tract cannot load shapes that depend on what is fed, as 'philox' and 'philox-int32' have them elsewhere"


def _repeated(node: ir.Node, where: Where) -> str:
    if not _is(node, *_DRAWS) or "seed" not in node.attributes:
        return ""
    if node.op_type == "Dropout" and switched_off(node, where.opset, where.constants):
        return ""
    return f"onnx's ReferenceEvaluator starts {node.op_type} from its seed in every run: each drops the same maps"


def _cpu_node(node: ir.Node, _: Where) -> str:
    if not op.is_spatial_dropout(node):
        return ""
    return "runs on the CPU alone, in the middle of the graph: a provider stops there, or leaves what is around it, too"


def _folded_if(node: ir.Node, _: Where) -> str:
    switches = [value for value in behind(node.inputs[:1]) if is_switch(value)] if _is(node, "If") else []
    if not switches:
        return ""
    return f"onnxscript's optimizer keeps the branch that {switches[0].name!r} takes by default, and drops the other"


def _if(node: ir.Node, _: Where) -> str:
    if not _is(node, "If") or GENERATOR_KEY in node.metadata_props:  # whose file was saved at every level, and loads
        return ""
    return "ONNX Runtime writes names twice when it saves a model with If: from level all on, or with function bodies"
