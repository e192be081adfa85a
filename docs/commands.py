"""Write docs/commands.md, the command line's reference, from its parser. Run ``python docs/commands.py``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from onnx_spatialdrop.cli import parser
from onnx_spatialdrop.cli.verbs import VERBS

PAGE = Path(__file__).parent / "commands.md"
HEAD = """# The command line

Written by `python docs/commands.py` from the parser; a test keeps it up to date. `onnx-spatialdrop VERB --help` says
the same.

- `VERB INPUT OUTPUT` replaces OUTPUT. Without OUTPUT the file is INPUT's name with `.inference.onnx` and the like, and
  one that is there already is replaced with `--force` alone. `--output-dir FOLDER` and `--in-place` take many INPUTs.
- Files are replaced whole or not at all. Weights in external files are not loaded.
- Tables and errors are for people; `--json` on every verb is for machines.
"""
TABLE = ["| argument | meaning |", "|---|---|"]


def told(action: argparse.Action) -> str:
    """Return the help of an argument, with what it refers to filled in."""
    values = {key: value for key, value in vars(action).items() if isinstance(value, (str, int, float))}
    values["prog"] = "onnx-spatialdrop"
    return re.sub(r"\s+", " ", (action.help or "") % values)


def row(action: argparse.Action) -> str:
    """Return the table row of one argument."""
    shown = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = " ".join(shown) if isinstance(shown, tuple) else str(shown)
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    if action.nargs != 0:
        names = f"{names} `{value}`".strip()
    return f"| {names} | {cell(told(action))} |"


def cell(text: str) -> str:
    """Return text that may stand in a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def section(name: str, verb: argparse.ArgumentParser, common: set[str]) -> str:
    """Return the section of one verb, without the rows that stand above all."""
    own = [action for action in verb._actions if "--help" not in action.option_strings]
    called = [str(action.metavar or action.dest) for action in own if not action.option_strings]
    if any("--in-place" in action.option_strings for action in own):
        called.append("[OUTPUT]")
    purpose = " ".join((verb.description or "").split())
    lines = [
        f"## {name}",
        "",
        purpose,
        "",
        "```text",
        " ".join(["onnx-spatialdrop", name, *called, "[OPTIONS]"]),
        "```",
        "",
    ]
    rows = [line for line in map(row, own) if line not in common]
    if rows:
        lines += [*TABLE, *rows, ""]
    if verb.epilog:
        lines += ["```text", verb.epilog.strip("\n"), "```", ""]
    return "\n".join(lines)


def content() -> str:
    """Return the whole page."""
    top = parser()
    choices = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction)).choices
    table = ["| verb | what it does |", "|---|---|"]
    table += [f"| [{name}](#{name}) | {cell(purpose)} |" for name, (_, purpose) in VERBS.items()]
    rows = {name: [row(action) for action in choices[name]._actions if action.option_strings] for name in VERBS}
    shared = [line for line in rows["inspect"] if all(line in every for every in rows.values())]
    writing = [line for line in rows["remove"] if line not in shared and line in rows["to-inference"]]
    verbs = [section(name, choices[name], {*shared, *writing}) for name in VERBS]
    codes = " ".join((top.epilog or "").split())
    above = ["## All verbs", "", codes, "", *TABLE, *shared, "", "Those that write a file:", "", *TABLE, *writing, ""]
    return "\n".join([HEAD, *table, "", *above, *verbs])


if __name__ == "__main__":
    PAGE.write_text(content())
