"""The verbs that read a model, run a pass and write it: ``to-inference``, ``attach``, ``expand`` and more."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.cli.check import FINDINGS
from onnx_spatialdrop.cli.terminal import say, working
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.attach import AttachPass, DetachPass
from onnx_spatialdrop.passes.expand import ALIASES, FORMS, TARGETS, ExpandPass
from onnx_spatialdrop.passes.expand.trainers import TrainerPass
from onnx_spatialdrop.passes.find import find_nodes
from onnx_spatialdrop.passes.leftovers import findings
from onnx_spatialdrop.passes.seeds import SeedsPass
from onnx_spatialdrop.passes.stratify import StratifyPass
from onnx_spatialdrop.passes.to_inference import run

__all__ = ["add", "output_of", "run_pass", "seed", "with_files"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    verb = with_files(verbs, "to-inference", "remove dropout, and what only it needed", "inference")
    verb.set_defaults(run=_to_inference)
    verb = with_files(verbs, "attach", "put the operator's function body into the file", "attached")
    _no_defaults(verb)
    verb.set_defaults(
        run=lambda arguments: run_pass(
            arguments, AttachPass(defaults=not arguments.no_defaults), "attached the body for {n} nodes"
        )
    )
    verb = with_files(verbs, "detach", "take the operator's function body out of the file", "detached")
    verb.set_defaults(run=lambda arguments: run_pass(arguments, DetachPass(), "{n} nodes now need a kernel"))
    verb = with_files(verbs, "expand", "write the nodes out in standard operators", "expanded")
    verb.add_argument("--form", choices=FORMS, help="how to write them out (default: the best one for the target)")
    verb.add_argument(
        "--target", choices=[*TARGETS, *ALIASES], default="onnxruntime", help="what is to run it (default: onnxruntime)"
    )
    _no_defaults(verb)
    verb.set_defaults(run=_expand)
    verb = with_files(verbs, "seeds", "give every node a seed of its own", "seeded")
    verb.add_argument("--base", type=seed, default=0, help="base seed (default: 0)")
    verb.add_argument("--keep-ties", action="store_true", help="nodes that share a seed go on sharing one")
    verb.add_argument(
        "--frameworks", action="store_true", help="nodes that draw as a framework does lose their layers' seeds, too"
    )
    verb.set_defaults(run=_seeds)
    verb = with_files(verbs, "stratify", "balance the draws over cycles of steps, for means of many draws", "balanced")
    verb.add_argument("--strata", type=int, default=31, help="steps in a cycle, a prime from 3 to 127 (default: 31)")
    verb.set_defaults(run=_stratify)


def _no_defaults(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--no-defaults",
        action="store_true",
        help="training_mode and step have to be fed: for tools that take an input with a default for a constant",
    )


def _to_inference(arguments: argparse.Namespace) -> int:
    output = output_of(arguments)
    with working() as work:
        work.stage(f"rewriting {arguments.input}")
        outcome = run(arguments.input, output, progress=work.copied)
    found = findings(outcome.left)
    left = f"; {len(found)} left, which may drop or are in training mode" if found else ""
    say(f"{output}: removed {outcome.removed} dropouts{left}")
    for each in outcome.left:
        say(f"  {'left' if each.is_finding else 'noise of the model'}: {each}")
    return FINDINGS if found else 0


def _seeds(arguments: argparse.Namespace) -> int:
    rewrite = SeedsPass(arguments.base, keep_ties=arguments.keep_ties, frameworks=arguments.frameworks)

    def describe(model: ir.Model) -> str:
        kept = f"; {rewrite.kept} draw as their framework does and keep its seeds" if rewrite.kept else ""
        return f"{len(find_nodes(model)) - rewrite.kept} nodes have seeds of their own{kept}"

    return run_pass(arguments, rewrite, "", describe)


def _stratify(arguments: argparse.Namespace) -> int:
    rewrite = StratifyPass(arguments.strata)

    def describe(model: ir.Model) -> str:
        kept = f"; {rewrite.kept} draw as their framework does and stay as they are" if rewrite.kept else ""
        return f"{len(find_nodes(model)) - rewrite.kept} nodes have strata {arguments.strata}{kept}"

    return run_pass(arguments, rewrite, "", describe)


def _expand(arguments: argparse.Namespace) -> int:
    prepare = TrainerPass(arguments.target)
    rewrite = ExpandPass(arguments.form, arguments.target, defaults=not arguments.no_defaults)
    code = run_pass(arguments, rewrite, "wrote {n} nodes out in standard operators", before=prepare)
    for line in prepare.said:
        say(f"  before that: {line}")
    return code


def with_files(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str, suffix: str
) -> argparse.ArgumentParser:
    """Add a verb with the arguments INPUT [OUTPUT], or -o OUTPUT; by default INPUT with ``suffix`` before .onnx."""
    verb = verbs.add_parser(name, help=description, description=description[0].upper() + description[1:] + ".")
    verb.add_argument("input", metavar="INPUT", help="an .onnx file")
    written = f"the file to write; may be INPUT itself (default: INPUT's name with .{suffix}.onnx)"
    verb.add_argument("output", metavar="OUTPUT", nargs="?", help=written)
    verb.add_argument("-o", "--output", dest="named_output", metavar="OUTPUT", help="the same, by name")
    verb.set_defaults(suffix=suffix)
    return verb


def run_pass(
    arguments: argparse.Namespace,
    rewrite: ir.passes.InPlacePass,
    message: str,
    describe: Callable[[ir.Model], str] | None = None,
    before: ir.passes.InPlacePass | None = None,
) -> int:
    """Load INPUT, run the pass (after ``before``), write OUTPUT and say what was done.

    ``{n}`` in ``message`` counts the nodes.
    """
    output = output_of(arguments)
    with working() as work:
        work.stage(f"reading {arguments.input}")
        model = io.load(arguments.input)
        work.stage(f"rewriting {arguments.input}")
        count = len(find_nodes(model))
        if before is not None:
            before.call(model)
        rewrite.call(model)
        work.stage(f"writing {output}")
        io.save(model, output, work.copied)
    say(f"{output}: {describe(model) if describe is not None else message.format(n=count)}")
    return 0


def output_of(arguments: argparse.Namespace) -> Path:
    """Return the file to write."""
    source = Path(arguments.input)
    return Path(arguments.output or source.with_name(f"{source.stem}.{arguments.suffix}.onnx"))


def seed(text: str) -> int:
    """Read a seed of the command line.

    Raises:
        ArgumentTypeError: it is no integer of 64 bits.
    """
    try:
        number = int(text)
        spec.signed_seed(number, "seed")
    except ValueError:  # SpecError too
        raise argparse.ArgumentTypeError(f"{text!r} is no integer in [-2**63, 2**64)") from None
    return number
