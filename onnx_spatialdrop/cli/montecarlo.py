"""``monte-carlo``: write the file that sums up its own draws."""

from __future__ import annotations

import argparse
from typing import Any

import onnx_ir as ir

from onnx_spatialdrop.cli.jobs import run_pass, with_files
from onnx_spatialdrop.cli.terminal import say
from onnx_spatialdrop.cli.verbs import Verbs
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.montecarlo.onefile import MonteCarloPass
from onnx_spatialdrop.montecarlo.options import chunk_of, options, target_of
from onnx_spatialdrop.montecarlo.tasks import TASKS
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import ALIASES, TARGETS, ExpandPass
from onnx_spatialdrop.passes.expand.targets import NO_DEFAULTS

__all__ = ["add", "add_options", "chosen", "layers", "pairs"]


_IDLE = "the file holds no dropout"


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = with_files(verbs, "monte-carlo", "mc", _run)
    add_options(verb)
    verb.add_argument("--chunk", type=_chunk, default="auto", help="draws at once: a number, all, or auto (default)")
    verb.add_argument(
        "--target",
        metavar="TARGET",
        choices=[*TARGETS, *ALIASES],
        help=f"what is to run it, where that has no kernel: {', '.join([*TARGETS, *ALIASES])}",
    )


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add what monte-carlo and uncertainty have in common."""
    verb.add_argument("--samples", type=int, default=31, help="draws a sample (default: 31)")
    verb.add_argument(
        "--task",
        metavar="TASK",
        choices=["auto", *TASKS],
        default="auto",
        help=f"what the outputs are: auto, {', '.join(TASKS)} (default: auto)",
    )
    verb.add_argument("--statistics", type=_names, metavar="A,B", help="which statistics (default: the task's usual)")
    verb.add_argument(
        "--layers", type=layers, default="all", metavar="A,B", help="dropout that is on: all, last, names"
    )
    verb.add_argument("--class-axis", type=int, metavar="AXIS", help="the axis of classes, where it cannot be told")
    verb.add_argument("--log-variance", type=pairs, metavar="OUTPUT", help="an output that is a log-variance, or A=B")
    verb.add_argument("--strata", type=int, default=31, help="draws are balanced over so many; 1: not (default: 31)")


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what add_options read, by the names that monte_carlo and MCDropout have for it, but for ``samples``."""
    names = ("task", "statistics", "layers", "class_axis", "log_variance", "strata")
    return {name: getattr(arguments, name) for name in names}


def _run(arguments: argparse.Namespace) -> int:
    target = target_of(arguments.target)
    summed = options(arguments.samples, **chosen(arguments))
    rewrite = MonteCarloPass(summed, chunk_of(arguments.chunk), target not in NO_DEFAULTS)

    def describe(model: ir.Model, _: int) -> str:
        plan = rewrite.plan
        assert plan is not None
        outputs = ", ".join(value.name or "" for value in model.graph.outputs)
        at_once = "draws run at once" if plan.proven else f"draws run one by one, since at {plan.ends}"
        carried = (spec.DOMAIN, spec.OP_TYPE, "") in model.functions
        kept = 0 if carried else len(spatial_dropouts(model))
        nodes = f"; {kept} nodes need a kernel" if kept else ""
        return f"{outputs}; {len(plan.prepared.live)} dropouts are on, {at_once}{nodes}"

    if target is None:
        code = run_pass(arguments, rewrite, describe, _IDLE)
    else:
        code = run_pass(arguments, ExpandPass(None, target), describe, _IDLE, before=rewrite)
    for note in _notes(rewrite):
        say(f"  note: {note}")
    return code


def _notes(rewrite: MonteCarloPass) -> list[str]:
    assert rewrite.plan is not None
    return [*rewrite.plan.prepared.notes, *(target.note for target in rewrite.targets if target.note)]


def _chunk(text: str) -> str | int:
    if text in ("auto", "all"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of draws, all or auto") from None


def _names(text: str) -> list[str]:
    return text.split(",")


def layers(text: str) -> str | list[str]:
    """Read which nodes are to draw."""
    return text if text in ("all", "last") else text.split(",")


def pairs(text: str) -> str | dict[str, str]:
    """Read an output, or output=log-variance pairs."""
    if "=" not in text:
        return text
    return {name: log for name, _, log in (each.partition("=") for each in text.split(","))}
