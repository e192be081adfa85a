"""``inspect``: which SpatialDropout nodes a file holds, what switches them, and which runtimes can run it."""

from __future__ import annotations

import argparse
from typing import Any

import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.cli.terminal import print_json, show, table, working
from onnx_spatialdrop.graph.scopes import default_opset
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body
from onnx_spatialdrop.passes.find import Found, find_nodes

__all__ = ["add", "runs_where"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser("inspect", help="list SpatialDropout nodes and what can run the file")
    verb.add_argument("input", metavar="INPUT", help="an .onnx file")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with working() as work:
        work.stage(f"reading {arguments.input}")
        model = io.load(arguments.input)
        found, runs = find_nodes(model), runs_where(model)
    if arguments.json:
        print_json({"file": arguments.input, "nodes": [each.as_dict() for each in found], "runs": runs})
        return 0
    if not found:
        show(f"{arguments.input}: no SpatialDropout nodes")
        return 0
    columns = ("node", "X", "axes", "ratio", "rng", "strata", "seed", "training_mode", "step", "where")
    table(arguments.input, columns, [_row(each) for each in found], right=("ratio", "strata", "seed"))
    table("What can run this file", ("runtime", "runs", "why"), [(k, v["runs"], v["why"]) for k, v in runs.items()])
    return 0


def _row(each: Found) -> tuple[str, ...]:
    shape = "?" if each.shape is None else " x ".join("?" if dim is None else str(dim) for dim in each.shape)
    return (
        each.name,
        f"{each.dtype or '?'} {shape}",
        str(list(each.axes)),
        f"{each.ratio:.6g}",
        each.rng,
        str(each.strata),
        str(each.seed),
        each.training_mode,
        each.step,
        each.scope or "main graph",
    )


def runs_where(model: ir.Model) -> dict[str, dict[str, Any]]:
    """Return, for each way to run the file, "yes" or "no" and why."""
    nodes = find_nodes(model)
    if not nodes:
        return {}
    opset = default_opset(model.graph, model)
    has_body = any(f.domain == spec.DOMAIN and f.name == spec.OP_TYPE for f in model.functions.values())
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
