"""``olive``: the file with which ``olive run --package-config`` finds this package's passes."""

from __future__ import annotations

import argparse

from onnx_spatialdrop.cli.terminal import print_json, show
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.integrations.olive_package import package_config

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "olive")
    verb.add_argument(
        "output",
        metavar="OUTPUT",
        nargs="?",
        help="a file to write, with Olive's own passes as well (default: the file in this package, without them)",
    )
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    file = str(package_config(arguments.output))
    if arguments.json:
        print_json({"package_config": file})
    else:
        show(file)
    return 0
