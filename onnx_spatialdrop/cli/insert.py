"""``insert``: put spatial dropout into a clean inference model, after the values that the command line names."""

from __future__ import annotations

import argparse

import onnx_ir as ir

from onnx_spatialdrop.cli.jobs import run_pass, with_files
from onnx_spatialdrop.cli.rewrites import nodes, seed
from onnx_spatialdrop.cli.verbs import Verbs
from onnx_spatialdrop.passes.insert import InsertPass

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = with_files(verbs, "insert", "dropped", _run)
    verb.add_argument(
        "--after",
        metavar="VALUE",
        action="append",
        help="a value of the main graph, or a node, whose first output it is; may be repeated",
    )
    verb.add_argument("--after-op", metavar="OP", action="append", help="after every node of this operator: Relu")
    verb.add_argument("--before-op", metavar="OP", action="append", help="before every node of this operator: Gemm")
    verb.add_argument(
        "--last", action="store_true", help="the last of these; alone, before the last layer with weights"
    )
    verb.add_argument("--rate", type=float, default=0.5, help="fraction dropped, in [0, 1] (default: 0.5)")
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--axes", type=_axes, metavar="A,B", help="the axes that share an entry, for example 2,3")
    which.add_argument(
        "--noise-shape", type=_noise_shape, metavar="D,D", help="the mask's shape as Keras takes it: None,1,1,None"
    )
    which.add_argument("--channels-last", action="store_true", help="all axes but the first and last share an entry")
    verb.add_argument("--seed", type=seed, default=0, help="base seed (default: 0)")


def _run(arguments: argparse.Namespace) -> int:
    if not (arguments.after or arguments.after_op or arguments.before_op or arguments.last):
        arguments.misused("one of the arguments --after, --after-op, --before-op, --last is required")
    rewrite = InsertPass(
        arguments.after,
        after_op=arguments.after_op,
        before_op=arguments.before_op,
        last=arguments.last,
        rate=arguments.rate,
        axes=arguments.axes,
        noise_shape=arguments.noise_shape,
        data_format="channels_last" if arguments.channels_last else "channels_first",
        seed=arguments.seed,
    )

    def message(_: ir.Model, __: int) -> str:
        where = f" after {', '.join(rewrite.inserted)}" if rewrite.by_kind else ""
        return f"inserted {nodes(len(rewrite.inserted))}{where}; dropout is off until training_mode is fed"

    return run_pass(arguments, rewrite, message, "no value is named")


def _axes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of axes such as 2,3") from None


def _noise_shape(text: str) -> list[int | None]:
    try:
        return [None if part.strip() == "None" else int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no noise shape such as None,1,1,None") from None
