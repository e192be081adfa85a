"""The verbs that run one pass: ``to-inference``, ``remove``, ``expand``, ``attach``, ``detach`` and more."""

from __future__ import annotations

import argparse

import onnx_ir as ir

from onnx_spatialdrop.cli.check import FINDINGS
from onnx_spatialdrop.cli.jobs import operators, operators_of, report, run_pass, with_files
from onnx_spatialdrop.cli.terminal import say, working
from onnx_spatialdrop.cli.verbs import Verbs
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.attach import AttachPass, DetachPass
from onnx_spatialdrop.passes.expand import ALIASES, FORMS, TARGETS, ExpandPass
from onnx_spatialdrop.passes.expand.trainers import TrainerPass
from onnx_spatialdrop.passes.leftovers import findings
from onnx_spatialdrop.passes.remove import RemovePass
from onnx_spatialdrop.passes.seeds import SeedsPass
from onnx_spatialdrop.passes.stratify import StratifyPass
from onnx_spatialdrop.passes.to_inference import run

__all__ = ["add", "nodes", "seed"]

_NONE = "the file holds no SpatialDropout nodes"
_FORMS = """forms:
  philox        the operator's own bits, in integers of 64 bits (opset 18)
  philox-int32  the same bits in 32 bits, for runtimes without wide integers
  uniform       the distribution: RandomUniformLike of the runtime, compared
  dropout       the distribution: Dropout of the runtime, on ones
  standard      the same bits by a RandomUniform that ONNX may get (target onnx)
  mask-inputs   each mask an input of the graph, which has to be fed
  identity      no dropout
"""


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    with_files(verbs, "to-inference", "inference", _to_inference)
    with_files(verbs, "remove", "removed", _remove)
    verb = with_files(verbs, "expand", "expanded", _expand, _FORMS)
    verb.add_argument(
        "--form", metavar="FORM", choices=FORMS, help="how to write them out (default: the best one for the target)"
    )
    verb.add_argument(
        "--target",
        metavar="TARGET",
        choices=[*TARGETS, *ALIASES],
        default="onnxruntime",
        help=f"what is to run it: {', '.join([*TARGETS, *ALIASES])} (default: onnxruntime)",
    )
    _no_defaults(verb)
    _no_defaults(with_files(verbs, "attach", "attached", _attach))
    with_files(verbs, "detach", "detached", _detach)
    verb = with_files(verbs, "assign-seeds", "seeded", _assign_seeds)
    verb.add_argument("--base", type=seed, default=0, help="base seed (default: 0)")
    verb.add_argument("--keep-ties", action="store_true", help="nodes that share a seed go on sharing one")
    verb.add_argument(
        "--frameworks", action="store_true", help="nodes that draw as a framework does lose their layers' seeds, too"
    )
    verb = with_files(verbs, "stratify", "balanced", _stratify)
    verb.add_argument("--strata", type=int, default=31, help="steps in a cycle, a prime from 3 to 127 (default: 31)")


def _no_defaults(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--no-defaults",
        action="store_true",
        help="training_mode and step have to be fed: for tools that take an input with a default for a constant "
        "(default: the file infers until somebody feeds them)",
    )


def nodes(count: int) -> str:
    """Return a number of nodes in words."""
    return f"{count} node{'s' * (count != 1)}"


def _to_inference(arguments: argparse.Namespace) -> int:
    file = arguments.input
    with working() as work:
        work.stage(f"rewriting {file}")
        had = operators_of(file)
        outcome = run(file, arguments.output, progress=work.copied)
    to_look_at = findings(outcome.left)
    left = f"; {len(to_look_at)} left, which may drop or are in training mode" if to_look_at else ""
    said = f"removed {outcome.removed} dropouts{left}"
    if not outcome.removed:
        said = f"nothing removed{left}" if to_look_at else "nothing to do: no dropout was found in the file"
    has = operators(outcome.model) if isinstance(outcome.model, ir.Model) else operators_of(str(outcome.model))
    left_over = {"removed": outcome.removed, "left": [leftover.as_dict() for leftover in outcome.left]}
    report(arguments, said, had, has, outcome.removed > 0, left_over)
    for leftover in outcome.left if not arguments.json else ():
        say(f"  {'left' if leftover.is_finding else 'noise of the model'}: {leftover}")
    return FINDINGS if to_look_at else 0


def _remove(arguments: argparse.Namespace) -> int:
    return run_pass(arguments, RemovePass(), lambda _, count: f"removed {nodes(count)}", _NONE)


def _attach(arguments: argparse.Namespace) -> int:
    rewrite = AttachPass(defaults=not arguments.no_defaults)
    return run_pass(arguments, rewrite, lambda _, count: f"attached the body for {nodes(count)}", _NONE)


def _detach(arguments: argparse.Namespace) -> int:
    idle = "the file holds no function body of the operator"
    return run_pass(arguments, DetachPass(), lambda _, count: f"{nodes(count)} now need a kernel", idle)


def _assign_seeds(arguments: argparse.Namespace) -> int:
    rewrite = SeedsPass(arguments.base, keep_ties=arguments.keep_ties, frameworks=arguments.frameworks)

    def message(_: ir.Model, count: int) -> str:
        kept = f"; {rewrite.kept} draw as their framework does and keep its seeds" if rewrite.kept else ""
        return f"gave {nodes(count - rewrite.kept)} seeds of their own{kept}"

    return run_pass(arguments, rewrite, message, "no node has another seed than it would get")


def _stratify(arguments: argparse.Namespace) -> int:
    rewrite = StratifyPass(arguments.strata)

    def message(_: ir.Model, count: int) -> str:
        kept = f"; {rewrite.kept} draw as their framework does and stay as they are" if rewrite.kept else ""
        return f"gave {nodes(count - rewrite.kept)} strata {arguments.strata}{kept}"

    return run_pass(arguments, rewrite, message, f"no node has other strata than {arguments.strata}")


def _expand(arguments: argparse.Namespace) -> int:
    prepare = TrainerPass(arguments.target)
    rewrite = ExpandPass(arguments.form, arguments.target, defaults=not arguments.no_defaults)
    code = run_pass(
        arguments, rewrite, lambda _, count: f"wrote {nodes(count)} out in standard operators", _NONE, before=prepare
    )
    for line in prepare.said:
        say(f"  before that: {line}")
    return code


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
