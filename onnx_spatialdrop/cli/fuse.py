"""``fuse``: turn dropout that a file spells out in standard ops into SpatialDropout nodes, and say what was proven."""

from __future__ import annotations

import argparse

from onnx_spatialdrop import io
from onnx_spatialdrop.cli.rewrites import output_of, seed, with_files
from onnx_spatialdrop.cli.terminal import print_json, say, show, working
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
    verb.add_argument("--seed", type=seed, default=0, help="base seed (default: 0)")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    rewrite = FusePass(
        elementwise=arguments.elementwise,
        bernoulli=arguments.bernoulli,
        training_mode=not arguments.off,
        seed=arguments.seed,
    )
    output = output_of(arguments)
    with working() as work:
        work.stage(f"reading {arguments.input}")
        model = io.load(arguments.input)
        work.stage(f"proving what is dropout in {arguments.input}")
        rewrite.call(model)
        work.stage(f"writing {output}")
        io.save(model, output, work.copied)
    report = rewrite.report
    if arguments.json:
        print_json(report.as_dict())
    elif arguments.explain:
        show(*report.lines())
    said = f"{len(report.fused)} fused, {len(report.refused)} refused"
    hint = "" if arguments.explain or arguments.json or not report.refused else " (--explain says why)"
    say(f"{output}: {said}{hint}")
    return 0
