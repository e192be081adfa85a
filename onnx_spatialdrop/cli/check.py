"""``check``: say what will go wrong with a file's dropout; exit code 3 where something will."""

from __future__ import annotations

import argparse
from typing import Final

from onnx_spatialdrop.cli.terminal import print_json, show, working
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.passes.check import check

__all__ = ["FINDINGS", "add"]

#: The exit code where there are findings.
FINDINGS: Final = 3


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "check")
    verb.add_argument("input", metavar="INPUT", help="an .onnx file")
    verb.add_argument("--target", help="a runtime or optimiser, such as openvino or onnxslim, to ask about")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with working() as work:
        work.stage(f"checking {arguments.input}")
        findings = check(arguments.input, target=arguments.target)
    if arguments.json:
        print_json({"file": arguments.input, "findings": [finding.as_dict() for finding in findings]})
    else:
        for finding in findings:
            show(str(finding))
        if not findings:
            show(f"{arguments.input}: nothing found")
    return FINDINGS if findings else 0
