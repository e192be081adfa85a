"""The verbs: their names, what each is for, and the module that has it, which is imported when it is asked for.

So the program's own help takes no time. A verb's module has a function ``add`` that calls ``added`` for each verb.
"""

from __future__ import annotations

import argparse
import textwrap
from importlib import import_module
from typing import Final, TypeAlias

__all__ = ["VERBS", "Verbs", "add_kernel", "added", "fill"]

#: What argparse keeps the verbs in.
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: As wide as argparse makes its help on a terminal of 80 columns.
_WIDTH: Final = 78
#: name -> (module in this folder, what the verb does)
VERBS: Final = {
    "inspect": ("inspect", "say what a file holds of dropout, what runs it, and what to do next"),
    "check": ("check", "say what will go wrong with a file's dropout, and what to do"),
    "to-inference": ("rewrites", "remove dropout of every kind, and what only it needed"),
    "fuse": ("fuse", "turn dropout in standard operators into SpatialDropout nodes"),
    "insert": ("insert", "put SpatialDropout nodes after values, switched off until fed"),
    "remove": ("rewrites", "remove SpatialDropout nodes alone; to-inference removes the rest, too"),
    "expand": ("rewrites", "write SpatialDropout nodes out in standard operators"),
    "attach": ("rewrites", "put the operator's function body into the file"),
    "detach": ("rewrites", "take the operator's function body out of the file"),
    "assign-seeds": ("rewrites", "give every SpatialDropout node a seed of its own"),
    "stratify": ("rewrites", "balance the draws over cycles of steps, for means of many draws"),
    "fix": ("fix", "make a switch a constant of the file, or a switch again"),
    "monte-carlo": ("montecarlo", "write a file that draws many times a run and returns mean, variance and entropies"),
    "quantize": ("quantize", "write an int8 model that draws as the float model does"),
    "triton": ("triton", "write a model that draws into a repository of NVIDIA Triton, with its config.pbtxt"),
    "olive": ("olive", "print the file that tells Olive of this package's passes"),
    "uncertainty": (
        "uncertainty",
        "how sure a model is of given inputs: statistics of its draws, and a page of pictures",
    ),
    "verify": (
        "verify",
        "compare a file's masks and outputs with its framework's, step by step, while dropout is on",
    ),
    "doctor": ("doctor", "show versions, the native library, and which kernels work here"),
    "demo": ("demo", "take a trained CNN through everything, and check each step"),
}


def fill(verbs: Verbs, chosen: str | None) -> None:
    """Add the verbs: ``chosen`` with its arguments, the others by name alone; all with theirs where it is None."""
    modules = {module for name, (module, _) in VERBS.items() if chosen in (None, name)}
    for module in sorted(modules):
        import_module(f"onnx_spatialdrop.cli.{module}").add(verbs)
    for name, (module, purpose) in VERBS.items():
        if module not in modules:
            verbs.add_parser(name, help=purpose)
    order = {name: index for index, name in enumerate(VERBS)}
    verbs._choices_actions.sort(key=lambda action: order[action.dest])


def added(verbs: Verbs, name: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Add a verb with what all verbs take, and return its parser.

    Args:
        verbs: what argparse keeps verbs in.
        name: one of VERBS.
        epilog: what stands under the help, laid out as it is.
    """
    purpose = VERBS[name][1]
    verb = verbs.add_parser(
        name,
        help=purpose,
        description=textwrap.fill(f"{purpose[0].upper()}{purpose[1:]}.", _WIDTH),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("--json", action="store_true", help="print JSON on stdout, for machines")
    how_much = verb.add_mutually_exclusive_group()
    how_much.add_argument("-v", "--verbose", action="store_true", help="say more")
    how_much.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors, and what was asked for")
    return verb


def add_kernel(verb: argparse.ArgumentParser) -> None:
    """Add --kernel, by which kernel sessions run nodes."""
    from onnx_spatialdrop.runtime.session import KERNELS

    verb.add_argument(
        "--kernel",
        metavar="KERNEL",
        choices=["auto", *KERNELS],
        default="auto",
        help=f"of ONNX Runtime: auto, {', '.join(KERNELS)} (default: auto)",
    )
