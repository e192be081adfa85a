"""``verify``: compare a file with its framework, or with a recording of it; exit code 3 where they part."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any, TypeVar

from onnx_spatialdrop.cli.check import FINDINGS
from onnx_spatialdrop.cli.terminal import print_json, show, table
from onnx_spatialdrop.cli.verbs import Verbs, add_kernel, added
from onnx_spatialdrop.errors import SpatialDropError, VerifyError
from onnx_spatialdrop.storage import arrays
from onnx_spatialdrop.verify import RUNTIMES, verify

__all__ = ["add"]

_N = TypeVar("_N", int, float)


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "verify")
    verb.add_argument("input", metavar="INPUT", help="an .onnx file")
    verb.add_argument(
        "--against",
        metavar="WHAT",
        required=True,
        help="a recording (.npz, written by onnx_spatialdrop.verify.record), or FILE.py:NAME, a function without "
        "arguments that returns the torch module or the Keras model; the file is run",
    )
    verb.add_argument("--inputs", metavar="FILE", help="the model's inputs: .npz by name, or .npy for a single one")
    verb.add_argument("--steps", type=_steps, help="forward passes to compare (default: 5, or all of a recording)")
    verb.add_argument("--first-step", type=_step, help="the number of the first one (default: 0, or a recording's)")
    verb.add_argument(
        "--tolerance", type=_tolerance, help="what outputs may differ by, relative to their largest value"
    )
    add_kernel(verb)
    verb.add_argument(
        "--runtime",
        metavar="RUNTIME",
        choices=RUNTIMES,
        default="onnxruntime",
        help=f"what runs the file: {', '.join(RUNTIMES)} (default: onnxruntime)",
    )
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    against = str(arguments.against)
    file, colon, name = against.rpartition(":")
    result = verify(
        _made(Path(file), name) if colon and file.endswith(".py") else against,
        arguments.input,
        None if arguments.inputs is None else _inputs(Path(arguments.inputs)),
        arguments.steps,
        first_step=arguments.first_step,
        tolerance=arguments.tolerance,
        kernel=arguments.kernel,
        runtime=arguments.runtime,
    )
    if arguments.json:
        print_json({"file": arguments.input, "against": against, **result.as_dict()})
    else:
        columns = ("layer", "equal entries", "dropped", "found")
        table(arguments.input, columns, result.rows(), right=("equal entries", "dropped"))
        for line in (result.headline(), *(f"note: {note}" for note in result.notes)):
            show(line)
    return 0 if result else FINDINGS


def _made(file: Path, name: str) -> Any:
    """Run a Python file and return what its function ``name`` returns."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise VerifyError(f"{file}: is no Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no __pycache__ beside the file
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, name):
            raise VerifyError(f"{file}: has no {name!r}; give FILE.py:NAME, NAME being a function without arguments")
        return getattr(module, name)()
    except SpatialDropError:
        raise
    except (Exception, SystemExit) as error:
        raise VerifyError(f"{file}:{name}: failed: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = kept


def _inputs(file: Path) -> Any:
    return arrays.read(file, "holds no arrays; write it with numpy.savez(file, name=array)")


def _steps(text: str) -> int:
    return _number(text, int, 1, 2**31 - 1, "no number of steps, 1 or more")


def _step(text: str) -> int:
    return _number(text, int, 0, 2**62, "no step in [0, 2**62]")


def _tolerance(text: str) -> float:
    return _number(text, float, 0.0, sys.float_info.max, "no finite number, 0 or more")


def _number(text: str, kind: type[_N], low: _N, high: _N, wrong: str) -> _N:
    """Read a number of the command line.

    Raises:
        ArgumentTypeError: it is none, or outside the bounds.
    """
    try:
        number = kind(text)
        if low <= number <= high:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is {wrong}")
