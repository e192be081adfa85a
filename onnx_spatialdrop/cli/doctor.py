"""``doctor``: versions, the native library, and which kernels work on this machine."""

from __future__ import annotations

import argparse

from onnx_spatialdrop.cli.terminal import print_json, show, table
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.runtime.doctor import doctor

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "doctor")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    report = doctor()
    if arguments.json:
        print_json(report.as_dict())
        return 0
    rows = [(package, version, report.untested.get(package, "")) for package, version in report.versions.items()]
    table("Versions", ("package", "version", "note"), rows)
    rows = [(each.kernel, "yes" if each.usable else "no", each.detail) for each in report.kernels]
    table("Kernels", ("kernel", "usable", "detail"), rows)
    show(f"native library: {report.library}")
    show(f"session(kernel='auto') takes: {report.auto}")
    return 0
