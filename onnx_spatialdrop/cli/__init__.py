"""The onnx-spatialdrop command line: one file a verb. It parses and prints; models are the passes' business."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from onnx_spatialdrop.cli import check, demo, doctor, fuse, inspect, rewrites
from onnx_spatialdrop.cli.terminal import errors
from onnx_spatialdrop.errors import SpatialDropError

__all__ = ["main", "parser"]

_VERBS = (inspect, check, fuse, rewrites, doctor, demo)

_EPILOG = "Exit codes: 0 done, 1 the model or the machine does not allow it, 2 usage, 3 findings (check)."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="onnx-spatialdrop",
        description="Spatial dropout in ONNX models: see it, remove it, rewrite it.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in _VERBS:
        module.add(verbs)
    return top


def _version() -> str:
    try:
        return version("onnx_spatialdrop")
    except PackageNotFoundError:
        return "(not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an expected fault is one line on stderr, without a traceback."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except SpatialDropError as error:
        errors.print(f"onnx-spatialdrop: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # a full disk under stdout
        errors.print(f"onnx-spatialdrop: cannot write: {error.strerror or error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
