"""``triton``: write a model that draws into a repository of NVIDIA Triton."""

from __future__ import annotations

import argparse

from onnx_spatialdrop.cli.montecarlo import add_options, chosen
from onnx_spatialdrop.cli.terminal import print_json, say, working
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.serving.triton import triton

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "triton")
    verb.add_argument("input", metavar="MODEL", help="an .onnx file with nodes, or exported in training mode")
    verb.add_argument("repository", metavar="REPOSITORY", help="the repository's folder")
    verb.add_argument("--name", help="the model's name there (default: the file's)")
    verb.add_argument("--version", type=int, default=1, help="its version there (default: 1)")
    add_options(verb)
    verb.add_argument("--one-draw", action="store_true", help="the model's own outputs, of one draw a request")
    verb.add_argument("--max-batch-size", type=int, default=32, metavar="N", help="samples at once (default: 32)")
    verb.add_argument("--force", action="store_true", help="replace the version and config.pbtxt")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with working() as work:
        work.stage(f"rewriting {arguments.input}")
        place = triton(
            arguments.input,
            arguments.repository,
            name=arguments.name,
            version=arguments.version,
            samples=None if arguments.one_draw else arguments.samples,
            max_batch_size=arguments.max_batch_size,
            force=arguments.force,
            **chosen(arguments),
        )
    configuration = (place / "config.pbtxt").read_text()
    if arguments.json:
        print_json({"input": arguments.input, "output": str(place), "configuration": configuration})
        return 0
    say(f"wrote {place / str(arguments.version)} and {place / 'config.pbtxt'}")
    if "max_batch_size: 0" in configuration:
        say("  note: requests run one by one: it is not proven that samples do not meet in the model")
    return 0
