"""How verbs talk: tables and messages for people, JSON for machines, a progress bar for long copies."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from onnx_spatialdrop.gc_pause import gc_paused

__all__ = [
    "Work",
    "errors",
    "is_quiet",
    "plain",
    "print_json",
    "refuse",
    "say",
    "screen",
    "show",
    "table",
    "talk",
    "working",
]

#: Seconds before a bar appears.
PATIENCE: Final = 2.0
_STYLES: Final = {"yes": "green", "NO": "red"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the choice of the exit code to main."""
        raise BrokenPipeError


class _Said(logging.Handler):
    """Says what the package logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one message."""
        say(record.getMessage())


screen = _Console()
errors = _Console(stderr=True)
_LOG: Final = logging.getLogger("onnx_spatialdrop")
_SAID: Final = _Said()
_quiet = False


def talk(quiet: bool = False, verbose: bool = False) -> None:
    """Set how much is said from now on: with ``quiet`` errors and results alone, with ``verbose`` all logs."""
    global _quiet
    _quiet = quiet
    _LOG.addHandler(_SAID)
    _LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


def is_quiet() -> bool:
    """Return whether only errors and results are printed."""
    return _quiet


def plain(text: str) -> str:
    """Return ``text`` on one line, without what controls a terminal: names come out of files that anybody may write."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def refuse(text: str) -> None:
    """Print the one line that says why nothing was done."""
    errors.print(f"onnx-spatialdrop: {plain(text)}", style="red", markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line on stderr that says what was done, unless nobody wants to hear."""
    if _quiet:
        return
    errors.print(plain(text), markup=False, highlight=False, soft_wrap=True)


def print_json(content: Any) -> None:
    """Print ``content`` as JSON on stdout, without colours or wrapping; what steers a terminal is escaped."""
    readable = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(content, indent=2, ensure_ascii=not readable)
    print("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))


def show(*lines: str) -> None:
    """Print lines on stdout, each without what steers a terminal; long ones are not broken."""
    for line in lines:
        screen.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table.

    Args:
        title: a line above it; "" for none.
        columns: their names.
        rows: a text for each column; "yes" and "NO" are coloured on a terminal.
        right: the columns that are aligned to the right.
    """
    if title:
        screen.print(plain(title), style="bold", markup=False, highlight=False, soft_wrap=True)
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row))
    screen.print(made)
    screen.print()


class Work:
    """A bar on stderr for what takes long: it appears after PATIENCE seconds, and only on a terminal."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=errors,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def stage(self, what: str) -> None:
        """Say what is being done from now on."""
        self._bar.update(self._task, description=escape(plain(what)), completed=0, total=None)

    def copied(self, done: int, total: int) -> None:
        """Say how many bytes of how many are done."""
        self._bar.update(self._task, completed=done, total=total)

    @contextmanager
    def shown(self) -> Iterator[Work]:
        """Draw the bar inside the context, from PATIENCE seconds on."""
        if not errors.is_terminal or _quiet:
            yield self
            return
        timer = threading.Timer(PATIENCE, self._bar.start)
        timer.daemon = True
        timer.start()
        try:
            yield self
        finally:
            timer.cancel()
            timer.join()
            self._bar.stop()


@contextmanager
def working() -> Iterator[Work]:
    """Return a context in which a bar is drawn if it lasts."""
    with gc_paused(), Work().shown() as work:
        yield work
