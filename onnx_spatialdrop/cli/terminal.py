"""How verbs talk: tables and messages for people, JSON for machines, a progress bar for long copies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["copying", "errors", "print_json", "screen", "table"]

screen = Console()
errors = Console(stderr=True)


def print_json(content: Any) -> None:
    """Print ``content`` as JSON on stdout, without colours or wrapping."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in ``right`` are aligned to the right."""
    made = Table(title=escape(title), title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    screen.print(made)


@contextmanager
def copying(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) bytes that draws a bar on stderr; nothing is drawn where nothing is copied."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
    task = bar.add_task(what, total=None)
    started = False

    def report(done: int, total: int) -> None:
        nonlocal started
        if not started:
            bar.start()
            started = True
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if started:
            bar.stop()
