"""``inspect``: what a file holds of dropout, what switches it, which runtimes can run it, and what to do next."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from onnx_spatialdrop.cli.terminal import print_json, show, table, working
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body
from onnx_spatialdrop.passes import direct
from onnx_spatialdrop.passes.find_protos import find_in
from onnx_spatialdrop.passes.found import Found
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.fuse.report import Record, Report
from onnx_spatialdrop.passes.masks.planned import PlannedGroup, planned
from onnx_spatialdrop.passes.opened import Opened
from onnx_spatialdrop.storage.survey import Survey

__all__ = ["add"]

#: Operators after which people put dropout, and how many of their values are named.
_PLACES = ("Relu", "LeakyRelu", "Gelu", "Elu", "Sigmoid", "Tanh", "BatchNormalization", "Conv", "LSTM", "GRU")
_NAMED = 3


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "inspect")
    verb.add_argument("input", metavar="INPUT", help="an .onnx file")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with working() as work:
        work.stage(f"reading {arguments.input}")
        opened = Opened(Path(arguments.input), direct.WANTED)
        survey = opened.survey
        nodes, places = find_in(survey, opened.folder), _places(survey)
        work.stage(f"looking for dropout in {arguments.input}")
        runs, masks, other = (
            _runs_where(survey) if nodes else {},
            list[PlannedGroup](),
            FusePass(elementwise=True, bernoulli=True),
        )
        if nodes or not direct.is_without_dropout(survey):
            model = opened.as_ir()
            masks = planned(model)
            other.call(model)
    norms = direct.training_batch_norms(survey)
    if arguments.json:
        written = {"file": arguments.input, "nodes": [row.as_dict() for row in nodes], "runs": runs}
        written["masks"] = [row.as_dict() for row in masks]
        print_json({**written, "other": other.report.as_dict(), "training_batch_norms": norms})
        return 0
    if nodes:
        _show_nodes(arguments.input, nodes)
        rows = [(", ".join(row.nodes), row.drawn, row.reason) for row in masks]
        table("How expand(form='philox') draws the masks", ("nodes", "drawn", "why"), rows)
        table("What can run this file", ("runtime", "runs", "why"), [(k, v["runs"], v["why"]) for k, v in runs.items()])
    if other.report.fused or other.report.refused:
        _show_other(arguments.input, other.report)
    elif not nodes:
        show(f"{arguments.input}: no dropout{'' if norms else ': a file for inference'}")
        named = f"such as {', '.join(places)}" if places else "of the main graph"
        show("", f"To add dropout after a value {named}:", f"  onnx-spatialdrop insert {arguments.input} --after VALUE")
    if norms:
        _show_norms(arguments.input, norms)
    return 0


def _show_norms(file: str, norms: list[str]) -> None:
    more = f" and {len(norms) - _NAMED} more" if len(norms) > _NAMED else ""
    show(
        "",
        f"Batch normalization in training mode: {', '.join(norms[:_NAMED])}{more}.",
        "An answer depends on the batch that it is computed in. To normalize by the",
        "statistics in the file (this removes dropout, too):",
        f"  onnx-spatialdrop to-inference {file}",
    )


def _show_nodes(file: str, nodes: list[Found]) -> None:
    columns = ("node", "X", "axes", "ratio", "seed")
    table(
        f"{file}: {len(nodes)} SpatialDropout node{'s' * (len(nodes) != 1)}",
        columns,
        [_row(node) for node in nodes],
        right=("ratio", "seed"),
    )
    facts = {
        "training_mode": [node.training_mode for node in nodes],
        "step": [node.step for node in nodes],
        "rng": [node.rng for node in nodes],
        "strata": [str(node.strata) for node in nodes],
        "where": [node.scope or "main graph" for node in nodes],
    }
    differ = [name for name, values in facts.items() if len(set(values)) > 1]
    show(*(f"{name}: {values[0]}" for name, values in facts.items() if name not in differ), "")
    if differ:
        rows = [(node.name, *(facts[name][index] for name in differ)) for index, node in enumerate(nodes)]
        table("Not the same for all", ("node", *differ), rows)


def _row(node: Found) -> tuple[str, ...]:
    shape = "?" if node.shape is None else " x ".join("?" if dim is None else str(dim) for dim in node.shape)
    x = f"{node.dtype or '?'} {shape}"
    return (node.name, x, str(list(node.axes)), f"{node.ratio:.6g}", str(node.seed))


def _show_other(file: str, report: Report) -> None:
    """Say what dropout there is that is no SpatialDropout node, and what to do about it."""
    rows = [_other_row(record, "") for record in report.fused]
    rows += [_other_row(record, record.reason) for record in report.refused]
    table(f"{file}: dropout in standard operators", ("at", "kind", "axes", "ratio", "not proven"), rows, ("ratio",))
    if report.fused:
        show(
            "To take it out, for inference:",
            f"  onnx-spatialdrop to-inference {file}",
            "To make SpatialDropout nodes of it, which have a switch and run everywhere:",
            f"  onnx-spatialdrop fuse {file}{_options(report.fused)}",
        )
    if report.refused:
        show("To see what was proven and what was not:", f"  onnx-spatialdrop fuse --explain --dry-run {file}")


def _options(fused: Iterable[Record]) -> str:
    return " --elementwise" if any(record.axes == () for record in fused) else ""


def _other_row(record: Record, reason: str) -> tuple[str, ...]:
    axes = "?" if record.axes is None else str(list(record.axes))
    return (record.name, record.kind, axes, "?" if record.ratio is None else f"{record.ratio:.6g}", reason)


def _places(survey: Survey) -> list[str]:
    """Return values after which somebody may want dropout: a few, of one operator of _PLACES."""
    main = survey.blocks[0]
    for op_type in _PLACES:
        made = (names for kind, names in zip(main.op_types, main.makes, strict=True) if kind == op_type)
        names = [names[0] for names in islice(made, _NAMED) if names and names[0]]
        if names:
            return names
    return []


def _runs_where(survey: Survey) -> dict[str, dict[str, Any]]:
    """Return, for each way to run a file with SpatialDropout nodes, "yes" or "no" and why."""
    opset = survey.blocks[0].opset
    has_body = any(f.domain == spec.DOMAIN and f.name == spec.OP_TYPE for f in survey.model.functions)
    bits = "the operator's own bits" if opset >= body.MIN_OPSET else "the runtime's own random numbers (opset < 18)"
    plain = ("yes", f"the file holds the function body: {bits}") if has_body else ("no", "no function body: attach")
    return {
        "onnxruntime + native library": {"runs": "yes", "why": "session() or register() brings the library"},
        "onnxruntime + onnxruntime-extensions": {"runs": "yes", "why": "session(kernel='python') lowers the nodes"},
        "onnxruntime alone": {"runs": plain[0], "why": plain[1]},
        "OpenVINO, tract": {
            "runs": "no",
            "why": "they run no model-local functions and no unknown ops: expand --target",
        },
    }
