"""The onnx-spatialdrop command line: one file a verb. It parses and prints; models are the passes' business."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, Final, NoReturn

from onnx_spatialdrop.cli.verbs import VERBS, fill
from onnx_spatialdrop.errors import ModelFileWarning, SpatialDropError

__all__ = ["main", "parser"]

_EPILOG = (
    "Exit codes: 0 done, 1 the model or the machine does not allow it, 2 usage, 3 findings (check, verify, "
    "to-inference), 130 and "
    "143 interrupted, 141 nobody reads stdout any more."
)
_SIGNALLED: Final = 128
#: Verbs that run models.
_APART: Final = ("verify", "demo", "uncertainty", "triton")
#: Seconds that such a verb has to end by itself when it is told to.
_GRACE_S: Final = 2
_UNFORESEEN: Final = "cannot be processed, in a way that was not foreseen"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with the usage and a line that steers no terminal."""
        from onnx_spatialdrop.cli.terminal import plain

        super().error(plain(message))


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line, of all verbs or with the arguments of one alone."""
    top: argparse.ArgumentParser = _Parser(
        prog="onnx-spatialdrop",
        description="Dropout in ONNX models, ordinary and spatial: see it, remove it, draw it. VERB --help says more.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    fill(verbs, chosen)
    for verb in verbs.choices.values():
        verb.set_defaults(misused=verb.error)
    return top


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments; what is wrong with them ends the program with the usage of the verb, not of all verbs."""
    chosen = next((word for word in argv if word in VERBS), "")
    arguments, unknown = parser(chosen).parse_known_args(argv)
    if unknown and hasattr(arguments, "files") and not any(word.startswith("-") for word in unknown):
        arguments.files += unknown  # argparse takes no more of them after an option
    elif unknown:
        arguments.misused(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def _version() -> str:
    try:
        return version("onnx_spatialdrop")
    except PackageNotFoundError:
        return "(not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a fault is one line on stderr that names the file, without a traceback.

    With ONNX_SPATIALDROP_DEBUG set, faults that nobody foresaw are raised. As a program (``argv`` is None), verbs that
    run models do so in a process of their own: a runtime may crash, take all memory, or not come back.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser("").print_help()
        return 0
    with _streams():
        arguments = _arguments(words)
        from onnx_spatialdrop.cli.terminal import refuse, talk  # what is asked for, not --help

        talk(quiet=arguments.quiet, verbose=arguments.verbose)
        try:
            with _terminable():
                if argv is None and arguments.verb in _APART:
                    return _apart(arguments, words)
                code: int = arguments.run(arguments)
                sys.stdout.flush()
        except SpatialDropError as error:
            refuse(_with_file(str(error), arguments))
        except BrokenPipeError:  # the reader of stdout has seen enough
            return _SIGNALLED + signal.SIGPIPE
        except KeyboardInterrupt as stop:
            return _SIGNALLED + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)
        except OSError as error:  # a full disk under stdout
            refuse(_with_file(f"cannot write: {error.strerror or error}", arguments))
        except MemoryError:
            refuse(_with_file("needs more memory than there is", arguments))
        except Exception as error:  # a file can be wrong in more ways than anybody has thought of
            if os.environ.get("ONNX_SPATIALDROP_DEBUG"):
                raise
            from onnx_spatialdrop.io import first_line

            said = f"{_UNFORESEEN} ({type(error).__name__}: {first_line(error)})"
            refuse(_with_file(f"{said}; ONNX_SPATIALDROP_DEBUG=1 shows where", arguments))
        else:
            return code
        return 1


def _apart(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run a command in a process of its own; end it with this one, also where it is deep in a runtime."""
    from onnx_spatialdrop.cli.terminal import refuse
    from onnx_spatialdrop.runtime import child_process

    child = child_process.start("from onnx_spatialdrop.cli import main; sys.exit(main(sys.argv[1:]))", *argv)
    try:
        code = child.wait()
    except BaseException:
        with suppress(BaseException):
            child.send_signal(signal.SIGINT)
            child.wait(_GRACE_S)
        child.kill()
        child.wait()
        raise
    died = child_process.death(code)
    if died:
        refuse(_with_file(f"{arguments.verb} {died} while it ran the model", arguments))
    return 1 if died else code


def _with_file(message: str, arguments: argparse.Namespace) -> str:
    files = [str(name) for key in ("input", "output", "models") if (name := getattr(arguments, key, None))]
    if not files or any(name in message for name in files):
        return message
    return f"{files[0]}: {message.removeprefix('the model: ')}"


class _Terminated(KeyboardInterrupt):
    """SIGTERM; raised, so that what is half-written is taken away."""


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


@contextmanager
def _streams() -> Iterator[None]:
    """Let stdout and stderr take every text, closed or ASCII as they may be; no log, no warnings."""
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
    with open(os.devnull, "w", encoding="utf-8") as nothing, warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", ModelFileWarning)
        warnings.showwarning = _show(warnings.showwarning)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, nothing)
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        yield
        _let_go_of_unwritten()
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is nothing:
                setattr(sys, name, None)


def _show(others: Callable[..., None]) -> Callable[..., None]:
    """Return what says one line of what was put right in a model, and leaves other warnings to ``others``."""

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, ModelFileWarning):
            from onnx_spatialdrop.cli.terminal import say

            say(str(message))
        else:
            others(message, category, *place)

    return show


def _let_go_of_unwritten() -> None:
    """Drop what stdout could not take: Python would try it again as it ends, complain, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
