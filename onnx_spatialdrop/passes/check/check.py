"""Run every rule over a model. Reads the model and, for dangling data, the sizes of its files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.analysis.sources import is_source
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.errors import ModelFileError, SpecError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.build import NODE_KEY
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.malformed import MalformedNodeError, reading
from onnx_spatialdrop.graph.ties import is_tied
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.check import targets
from onnx_spatialdrop.passes.check.finding import Finding
from onnx_spatialdrop.passes.check.live import live_dropout
from onnx_spatialdrop.passes.check.quantized import QUANTIZED, calibrated_off
from onnx_spatialdrop.passes.check.rules import RULES, Rule, Where
from onnx_spatialdrop.passes.check.validity import VALIDITY
from onnx_spatialdrop.passes.fuse.frozen import frozen_masks
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY
from onnx_spatialdrop.storage import external

__all__ = ["check"]


def check(model: io.Source, *, target: str | None = None) -> list[Finding]:
    """Return what will go wrong with the dropout of a model, in the order of the rules.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        target: what the file is meant for, so that its own rules are asked as well: a target of expand, or one of the
            optimisers "onnxslim", "onnxsim", "onnxscript", "onnxoptimizer", "onnx-ir" and "onnxruntime-offline", or
            "onnxruntime-providers" for sessions on other processors than the CPU.

    Raises:
        FormError: an unknown target.
        ModelFileError: a file that is no ONNX model.
    """
    name = None if target is None else targets.resolve(target)
    findings: list[Finding] = []
    source = io.checked_source(model)
    if isinstance(source, onnx.ModelProto):
        model = io.from_proto(source)
    elif isinstance(source, ir.Model):
        model = source
    else:
        model, findings = _load(source)
    rules = RULES + VALIDITY + QUANTIZED + (() if name is None else targets.rules_for(name))
    switches = [] if name is None else targets.frozen_switches(model, name)
    found = _nodes(model, rules, name)
    return findings + found + _seeds(model) + _frozen(model) + live_dropout(model) + calibrated_off(model) + switches


def _load(path: Path) -> tuple[ir.Model, list[Finding]]:
    model = io.read(path)
    try:
        external.check(model, path)
    except ModelFileError as problem:
        names = tuple(tensor.name or "" for tensor in external.dangling(model))
        return model, [Finding("dangling-data", names, str(problem), "put the data file beside the model")]
    return model, []


def _nodes(model: ir.Model, rules: tuple[Rule, ...], target: str | None) -> list[Finding]:
    constants = Constants(overridable=(model.ir_version or 10) < 4)
    shapes = Shapes(constants)
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for scope in scopes.foreign_scopes(model):
        opset = scopes.default_opset(scope, model)
        plain, inside = (Where(opset, held, model, constants, shapes) for held in (False, True))
        for node, in_if in _walk(scope):
            own = op.is_spatial_dropout(node) or bool({NODE_KEY, GENERATOR_KEY} & node.metadata_props.keys())
            for rule in rules:
                if own and rule.own is not None and target not in rule.own:
                    continue
                try:
                    with reading(node):
                        message = rule.find(node, inside if in_if else plain)
                except MalformedNodeError:
                    continue  # onnx.checker says what is wrong with a node that its operator does not allow
                if message:
                    found[rule.name, message, rule.fix].append(node.name or op.describe(node))
    order = {rule.name: index for index, rule in enumerate(rules)}
    ordered = sorted(found.items(), key=lambda item: order[item[0][0]])
    return [Finding(rule, tuple(names), message, fix) for (rule, message, fix), names in ordered]


def _walk(scope: scopes.Scope | ir.Graph, in_if: bool = False) -> Iterator[tuple[ir.Node, bool]]:
    for node in scope:
        yield node, in_if
        held = in_if or (node.op_type == "If" and node.domain == "")
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                yield from _walk(attribute.as_graph(), held)
            elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
                for graph in attribute.as_graphs():
                    yield from _walk(graph, held)


def _seeds(model: ir.Model) -> list[Finding]:
    ours: dict[int, list[ir.Node]] = defaultdict(list)
    theirs: dict[float, list[ir.Node]] = defaultdict(list)
    for node in (node for scope in scopes.foreign_scopes(model) for node in scope.all_nodes()):
        if op.is_spatial_dropout(node):
            try:
                attributes = op.read(node)
            except SpecError:
                continue
            if attributes.rng == spec.RNGS[0]:  # in the others the seeds are the layers', equal where theirs are
                ours[attributes.seed].append(node)
        elif is_source(node) and "seed" in node.attributes and not node.attributes["seed"].is_ref():
            theirs[float(node.attributes["seed"].value)].append(node)
    findings = []
    for seed, nodes in ours.items():
        if len(nodes) > 1 and not all(is_tied(node) for node in nodes):
            names = tuple(node.name or op.describe(node) for node in nodes)
            message = f"{len(nodes)} nodes have the seed {seed}: they drop the same maps, and optimisers may merge them"
            findings.append(Finding("equal-seeds", names, message, "assign_seeds(model)"))
    for number, nodes in theirs.items():
        if len(nodes) > 1:
            names = tuple(node.name or op.describe(node) for node in nodes)
            message = (
                f"{len(nodes)} random nodes have the seed {number:g}: with equal shapes they draw the same numbers"
            )
            findings.append(Finding("equal-seeds", names, message, "fuse(model): every draw gets a seed of its own"))
    return findings


def _frozen(model: ir.Model) -> list[Finding]:
    return [
        Finding("frozen-mask", (record.name,), f"{record.proven[0]}; {record.reason}", record.notes[0])
        for record in frozen_masks(model)
    ]
