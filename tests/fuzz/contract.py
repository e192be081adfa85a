"""What every verb owes its users whatever the file: an exit code, one line, and files that are whole."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import onnx
from fuzz.losses import losses

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.passes.check.targets import OPTIMIZERS
from onnx_spatialdrop.passes.expand import FORMS, TARGETS
from onnx_spatialdrop.runtime.session import KERNELS

__all__ = ["READING", "REWRITING", "RUNNING", "Hang", "Verb", "breach", "limited"]

Verb = tuple[str, ...]

#: Arguments around INPUT (and OUTPUT) of every verb that reads a file.
READING: tuple[Verb, ...] = (
    ("inspect",),
    ("inspect", "--json"),
    ("check",),
    ("check", "--json"),
    *(("check", "--target", target) for target in (*TARGETS, *OPTIMIZERS)),
)
REWRITING: tuple[Verb, ...] = (
    ("to-inference",),
    ("fuse", "--explain"),
    ("fuse", "--json", "--elementwise", "--bernoulli"),
    ("fuse", "--off", "--seed", "18446744073709551615"),
    ("insert", "--after", "x"),
    ("insert", "--after", "y", "--axes", "0,-1", "--rate", "0.25"),
    ("attach",),
    ("attach", "--no-defaults"),
    ("detach",),
    ("remove", "--json"),
    ("stratify", "-v"),
    ("to-inference", "-q"),
    ("assign-seeds", "--keep-ties"),
    ("assign-seeds", "--base", "3"),
    ("assign-seeds", "--frameworks"),
    ("expand",),
    ("expand", "--no-defaults"),
    *(("expand", "--form", form) for form in FORMS if form != "standard"),  # which no runtime has
    *(("expand", "--target", target) for target in TARGETS if target != "onnx"),
)
#: Verbs that run models, with files that stand beside INPUT; FOLDER is where.
RUNNING: tuple[Verb, ...] = (
    *(("verify", "--against", "FOLDER/recording.npz", "--kernel", kernel) for kernel in ("auto", *KERNELS)),
    ("verify", "--against", "FOLDER/recording.npz", "--runtime", "reference", "--steps", "2", "--json"),
    ("verify", "--against", "FOLDER/recording.npz", "--inputs", "FOLDER/inputs.npz", "--tolerance", "0.1"),
    ("verify", "--against", "FOLDER/framework.py:network", "--inputs", "FOLDER/inputs.npz", "--first-step", "3"),
    ("demo", "--models", "FOLDER"),
    ("doctor",),
    ("doctor", "--json"),
)
_WITHOUT_INPUT = ("demo", "doctor")
_WITH_FINDINGS = ("check", "verify", "to-inference")
_OLD = b"what was there before"


class Hang(BaseException):
    """A verb took longer than it may; no Exception, so that nothing on the way takes it for its own."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise Hang after ``seconds`` of work, or twenty times as long of waiting, since the machine may be busy."""

    def stop(_: int, __: FrameType | None) -> None:
        raise Hang

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 20 * seconds)}
    old = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, old[number])


def breach(verb: Verb, file: Path) -> str:
    """Run a verb on a file in a folder of its own and return what it broke of the contract; "" if nothing.

    Exceptions that leave ``main`` are the caller's.
    """
    before = _contents(file.parent)
    output = file.with_name("written.onnx")
    rewrites = verb in REWRITING
    if rewrites:
        output.write_bytes(_OLD)
    named = [] if verb[0] in _WITHOUT_INPUT else [str(file), str(output)] if rewrites else [str(file)]
    arguments = [verb[0], *named, *(word.replace("FOLDER", str(file.parent)) for word in verb[1:])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _from_below() as below:
        try:
            code = main(arguments)
        except SystemExit as stop:
            return f"exits by itself with {stop.code}"
    said = err.getvalue() + "".join(below)
    after = _contents(file.parent)
    written = after.pop(output.name, None)
    for name in after.keys() - before.keys():
        file.with_name(name).unlink()
    if written is not None:
        output.unlink()
    if after != before:
        return f"changed other files than its output: {sorted(set(after) ^ set(before)) or 'the input'}"
    if "Traceback" in said or "not foreseen" in said:
        return f"speaks Python: {said!r}"
    if code == 1:
        return _refusal(said, written, rewrites, arguments)
    if code not in ((0, 3) if verb[0] in _WITH_FINDINGS else (0,)):
        return f"exit code {code}: {said!r}"
    if verb in RUNNING and said:
        return f"speaks without need: {said!r}"
    return _success(verb[0], written, file) if rewrites else ""


@contextlib.contextmanager
def _from_below() -> Iterator[list[str]]:
    """Collect what libraries write to the process's stderr without asking Python."""
    said, real = list[str](), os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            said.append(held.read().decode(errors="replace"))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _refusal(said: str, written: bytes | None, rewrites: bool, arguments: Sequence[str]) -> str:
    if said.count("\n") != 1 or not said.startswith("onnx-spatialdrop: "):
        return f"not one line: {said!r}"
    if not any(os.sep in word and word.split(":")[0] in said for word in arguments):
        return f"does not name the file: {said!r}"
    if rewrites and written != _OLD:
        return "replaced its output and failed"
    return ""


def _success(verb: str, written: bytes | None, file: Path) -> str:
    if written is None:
        return "wrote nothing and succeeded"
    copy = file.with_name("read_back.onnx")
    copy.write_bytes(written)
    try:
        sd.load(copy)
        if verb in ("assign-seeds", "detach") and not sd.find(file) and b"SpatialDropout" not in file.read_bytes():
            lost = losses(onnx.load(file, load_external_data=False), onnx.load(copy, load_external_data=False))
            return f"lost {', '.join(lost)}" if lost else ""
    except sd.ModelFileError as error:
        return f"wrote what it cannot read: {error}"
    finally:
        copy.unlink()
    return ""
