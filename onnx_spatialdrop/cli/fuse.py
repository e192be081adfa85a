"""``fuse``: turn dropout that a file spells out in standard ops into SpatialDropout nodes, and say what was proven."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnx_spatialdrop import io
from onnx_spatialdrop.cli.rewrites import with_files
from onnx_spatialdrop.cli.terminal import copying, errors, print_json, screen
from onnx_spatialdrop.passes.fuse import FusePass

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = with_files(verbs, "fuse", "turn dropout in standard operators into SpatialDropout nodes", "fused")
    verb.add_argument("--explain", action="store_true", help="say what was proven of each candidate and what was not")
    verb.add_argument("--json", action="store_true", help="print the report as JSON")
    verb.add_argument("--elementwise", action="store_true", help="element-wise dropout too, with axes []")
    verb.add_argument("--bernoulli", action="store_true", help="masks of Bernoulli too, by ONNX's definition")
    verb.add_argument("--off", action="store_true", help="the new switch is off until somebody feeds training_mode")
    verb.add_argument("--seed", type=int, default=0, help="base seed (default: 0)")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    model = io.load(arguments.input)
    rewrite = FusePass(
        elementwise=arguments.elementwise,
        bernoulli=arguments.bernoulli,
        training_mode=not arguments.off,
        seed=arguments.seed,
    )
    rewrite.call(model)
    report = rewrite.report
    source = Path(arguments.input)
    output = Path(arguments.output or source.with_name(f"{source.stem}.{arguments.suffix}.onnx"))
    with copying(f"weights of {output.name}") as progress:
        io.save(model, output, progress)
    if arguments.json:
        print_json(report.as_dict())
    elif arguments.explain:
        screen.print(str(report), markup=False, highlight=False, soft_wrap=True)
    said = f"{len(report.fused)} fused, {len(report.refused)} refused"
    hint = "" if arguments.explain or arguments.json or not report.refused else " (--explain says why)"
    errors.print(f"{output}: {said}{hint}", markup=False, highlight=False, soft_wrap=True)
    return 0
