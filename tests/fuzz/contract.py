"""What every verb owes its users whatever the file: an exit code, one line, and files that are whole."""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import onnx
from fuzz.losses import losses

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main

__all__ = ["READING", "REWRITING", "Hang", "breach", "limited"]

#: Arguments around INPUT (and OUTPUT) of every verb that reads a file.
READING = (("inspect",), ("inspect", "--json"), ("check",), ("check", "--json"))
REWRITING = (
    ("to-inference",),
    ("fuse", "--explain"),
    ("fuse", "--json", "--elementwise", "--bernoulli"),
    ("attach",),
    ("detach",),
    ("seeds", "--keep-ties"),
    ("seeds", "--base", "3"),
    ("expand",),
    ("expand", "--form", "philox-int32"),
    ("expand", "--form", "uniform"),
    ("expand", "--form", "dropout"),
    ("expand", "--form", "identity"),
    ("expand", "--target", "openvino"),
    ("expand", "--target", "onnxruntime-training"),
    ("expand", "--target", "onnx2torch"),
)
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


def breach(verb: tuple[str, ...], file: Path) -> str:
    """Run a verb on a file in a folder of its own and return what it broke of the contract; "" if nothing.

    Exceptions that leave ``main`` are the caller's.
    """
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    output = file.with_name("written.onnx")
    rewrites = verb in REWRITING
    if rewrites:
        output.write_bytes(_OLD)
    arguments = [verb[0], str(file), *([str(output)] if rewrites else []), *verb[1:]]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            return f"exits by itself with {stop.code}"
    said = err.getvalue()
    after = {path.name: path.read_bytes() for path in file.parent.iterdir()}
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
        return _refusal(said, written, rewrites, str(file))
    if code not in ((0, 3) if verb[0] == "check" else (0,)):
        return f"exit code {code}: {said!r}"
    return _success(verb[0], written, file) if rewrites else ""


def _refusal(said: str, written: bytes | None, rewrites: bool, file: str) -> str:
    if said.count("\n") != 1 or not said.startswith("onnx-spatialdrop: "):
        return f"not one line: {said!r}"
    if file not in said and str(Path(file).with_name("written.onnx")) not in said:
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
        if verb in ("seeds", "detach") and not sd.find(file) and b"SpatialDropout" not in file.read_bytes():
            lost = losses(onnx.load(file, load_external_data=False), onnx.load(copy, load_external_data=False))
            return f"lost {', '.join(lost)}" if lost else ""
    except sd.ModelFileError as error:
        return f"wrote what it cannot read: {error}"
    finally:
        copy.unlink()
    return ""
