"""``fuse``: turn dropout that a file spells out in standard ops into SpatialDropout nodes, and say what was proven."""

from __future__ import annotations

import argparse

from onnx_spatialdrop import io
from onnx_spatialdrop.cli.jobs import operators, report, with_files
from onnx_spatialdrop.cli.rewrites import seed
from onnx_spatialdrop.cli.terminal import show, working
from onnx_spatialdrop.cli.verbs import Verbs
from onnx_spatialdrop.passes.fuse import FusePass

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = with_files(verbs, "fuse", "fused", _run)
    verb.add_argument("--explain", action="store_true", help="say what was proven of each candidate and what was not")
    verb.add_argument("--elementwise", action="store_true", help="element-wise dropout too, with axes []")
    verb.add_argument("--bernoulli", action="store_true", help="masks of Bernoulli too, by ONNX's definition")
    verb.add_argument(
        "--off",
        action="store_true",
        help="the new switch is off until somebody feeds training_mode (default: on, since the file drew)",
    )
    verb.add_argument("--seed", type=seed, default=0, help="base seed (default: 0)")


def _run(arguments: argparse.Namespace) -> int:
    rewrite = FusePass(
        elementwise=arguments.elementwise,
        bernoulli=arguments.bernoulli,
        training_mode=not arguments.off,
        seed=arguments.seed,
    )
    with working() as work:
        work.stage(f"reading {arguments.input}")
        model = io.load(arguments.input)
        had = operators(model)
        work.stage(f"proving what is dropout in {arguments.input}")
        modified = rewrite.call(model).modified
        if arguments.output is not None:
            work.stage(f"writing {arguments.output}")
            io.save(model, arguments.output, work.copied)
    outcome = rewrite.report
    if arguments.explain and not arguments.json:
        show(*outcome.lines())
    said = f"{len(outcome.fused)} fused, {len(outcome.refused)} refused"
    if not outcome.fused and not outcome.refused:
        said = "nothing to do: the file holds no dropout in standard operators"
    hint = "" if arguments.explain or not outcome.refused else " (--explain says why)"
    report(arguments, said + hint, had, operators(model), modified, outcome.as_dict())
    return 0
