"""``fix``: make a switch of a file a constant, or a switch again."""

from __future__ import annotations

import argparse
from typing import Final, Literal

from onnx_spatialdrop.cli.jobs import run_pass, with_files
from onnx_spatialdrop.cli.verbs import Verbs
from onnx_spatialdrop.passes.fix import FREE, FixPass

__all__ = ["add"]

_MODES: Final[dict[str, bool | Literal["free"]]] = {"on": True, "off": False, FREE: FREE}


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = with_files(verbs, "fix", "fixed", _run)
    verb.add_argument("--training-mode", choices=_MODES, help="dropout always on, always off, or fed again")
    verb.add_argument("--step", type=_step, metavar="N", help="the draw of every run; -1: a fresh one; free: fed again")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.training_mode is None and arguments.step is None:
        arguments.misused("give --training-mode or --step")
    rewrite = FixPass(_MODES.get(arguments.training_mode), arguments.step)
    said = [
        f"{name} is {'an input' if value == FREE else value}"
        for name, value in (("training_mode", arguments.training_mode), ("step", arguments.step))
        if value is not None
    ]
    return run_pass(arguments, rewrite, lambda *_: ", ".join(said), "the switches are what they are to be")


def _step(text: str) -> int | str:
    if text == FREE:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor {FREE!r}") from None
