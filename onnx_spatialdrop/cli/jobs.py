"""Verbs that rewrite files: which file becomes which, for one INPUT or many, and what is said of each.

Nothing here touches a node; what is written is the business of the verb, or of run_pass, which runs a pass.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.cli.terminal import is_quiet, print_json, refuse, say, table, working
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.errors import ModelFileError, SpatialDropError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.passes.find import find_nodes
from onnx_spatialdrop.storage import files, protos

__all__ = ["operators", "operators_of", "report", "run_pass", "with_files"]

#: Says what was done to an INPUT, and returns the exit code.
Run = Callable[[argparse.Namespace], int]


def with_files(verbs: Verbs, name: str, suffix: str, run: Run, epilog: str | None = None) -> argparse.ArgumentParser:
    """Add a verb that rewrites files, and return its parser.

    Args:
        verbs: what argparse keeps verbs in.
        name: the verb.
        suffix: what stands before .onnx in the name of an OUTPUT that is not named.
        run: rewrites ``arguments.input`` to ``arguments.output``, a Path that is None in a dry run, and reports.
        epilog: as ``added`` takes it.
    """
    verb = added(verbs, name, epilog)
    verb.usage = (
        f"{verb.prog} [OPTION ...] INPUT [OUTPUT]\n"
        f"       {verb.prog} [OPTION ...] --output-dir FOLDER INPUT ...\n"
        f"       {verb.prog} [OPTION ...] --in-place INPUT ..."
    )
    verb.add_argument(
        "files",
        metavar="INPUT",
        nargs="+",
        help="the .onnx file to read; then OUTPUT, the one to write, which is replaced if it is there; without OUTPUT "
        f"it is INPUT's name with .{suffix}.onnx. With --output-dir or --in-place all are INPUTs",
    )
    where = verb.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", dest="named_output", metavar="OUTPUT", help="the file to write, by name")
    where.add_argument("--output-dir", metavar="FOLDER", help="write each INPUT under its own name into this folder")
    where.add_argument("--in-place", action="store_true", help="replace each INPUT")
    verb.add_argument("--force", action="store_true", help="replace an OUTPUT that was not named")
    verb.add_argument("--dry-run", action="store_true", help="write nothing; say what would be done")
    verb.set_defaults(run=lambda arguments: _each(arguments, run), suffix=suffix)
    return verb


def _each(arguments: argparse.Namespace, run: Run) -> int:
    """Run a verb for each INPUT; one that is refused does not stop the others."""
    pairs, codes = _pairs(arguments), []
    arguments.told = []
    for source, output in pairs:
        arguments.input, arguments.output = source, None if arguments.dry_run else output
        arguments.place = output
        try:
            if output.exists() and not arguments.replaces:
                raise ModelFileError(f"{output}: is there already; name it as OUTPUT to replace it, or use --force")
            codes.append(run(arguments))
        except SpatialDropError as error:
            if len(pairs) == 1:
                raise
            text = str(error)
            refuse(text if source in text or str(output) in text else f"{source}: {text.removeprefix('the model: ')}")
            codes.append(1)
    if arguments.json and arguments.told:
        print_json(arguments.told[0] if len(pairs) == 1 else arguments.told)
    return next((code for code in (1, *sorted(codes, reverse=True)) if code in codes), 0)


def _pairs(arguments: argparse.Namespace) -> list[tuple[str, Path]]:
    """Return each INPUT and its OUTPUT; what does not fit together ends the program with the verb's usage."""
    files: list[str] = arguments.files
    arguments.replaces = True
    if arguments.in_place:
        return [(file, Path(file)) for file in files]
    if arguments.output_dir is not None:
        folder = Path(arguments.output_dir)
        twice = [name for name, count in Counter(Path(file).name for file in files).items() if count > 1]
        if twice:
            arguments.misused(f"several INPUTs are called {twice[0]}, and would be one file in {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelFileError(f"{folder}: cannot be made: {error.strerror}") from error
        return [(file, folder / Path(file).name) for file in files]
    if arguments.named_output is not None:
        if len(files) == 2:
            arguments.misused(f"OUTPUT is given twice: {files[1]} and {arguments.named_output}")
        files = [*files, arguments.named_output]
    if len(files) > 2:
        arguments.misused("several INPUTs need --output-dir or --in-place")
    if len(files) == 2:
        return [(files[0], Path(files[1]))]
    source = Path(files[0])
    arguments.replaces = arguments.force
    return [(files[0], source.with_name(f"{source.stem}.{arguments.suffix}.onnx"))]


def run_pass(
    arguments: argparse.Namespace,
    rewrite: ir.passes.InPlacePass,
    message: Callable[[ir.Model, int], str],
    idle: str,
    before: ir.passes.InPlacePass | None = None,
) -> int:
    """Load INPUT, run the pass (after ``before``), write OUTPUT and report.

    Args:
        arguments: with ``input`` and ``output``, as _each gives them.
        rewrite: the pass.
        message: says what was done, of the model and the number of SpatialDropout nodes that it had.
        idle: says why there was nothing to do.
        before: another pass, for what the first one needs.
    """
    with working() as work:
        work.stage(f"reading {arguments.input}")
        model = io.load(arguments.input)
        had, count = operators(model), len(find_nodes(model))
        work.stage(f"rewriting {arguments.input}")
        modified = before is not None and before.call(model).modified
        modified = rewrite.call(model).modified or modified
        if arguments.output is not None:
            work.stage(f"writing {arguments.output}")
            io.save(model, arguments.output, work.copied)
    said = message(model, count) if modified else f"nothing to do: {idle}"
    report(arguments, said, had, operators(model), modified)
    return 0


def operators(model: ir.Model) -> Counter[str]:
    """Return how many nodes of each operator a model holds, subgraphs and functions included."""
    return Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in scopes.all_nodes(model)
    )


def operators_of(file: str) -> Counter[str]:
    """Return the same of a file, without a look at more than its nodes."""
    model = protos.parse(files.read(Path(file)), file)
    pending: list[Iterable[onnx.NodeProto]] = [model.graph.node, *(function.node for function in model.functions)]
    counted = Counter[str]()
    while pending:
        for node in pending.pop():
            domain = "" if node.domain == "ai.onnx" else node.domain
            counted[f"{domain}::{node.op_type}" if domain else node.op_type] += 1
            for attribute in node.attribute:
                if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                    pending += [graph.node for graph in (attribute.g, *attribute.graphs)]
    return counted


def report(
    arguments: argparse.Namespace,
    message: str,
    before: Counter[str],
    after: Counter[str],
    modified: bool = True,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Say what came of one INPUT: a line on stderr and a table of the operators that changed, or JSON.

    Args:
        arguments: with ``input`` and ``place``, as _each gives them.
        message: what was done.
        before: how many nodes of each operator there were.
        after: how many there are.
        modified: whether the model was changed.
        further: what JSON holds besides.
    """
    if arguments.json:
        arguments.told.append(
            {
                "input": arguments.input,
                "output": str(arguments.place),
                "written": not arguments.dry_run,
                "modified": modified,
                "message": message,
                "operators": {"before": dict(sorted(before.items())), "after": dict(sorted(after.items()))},
                **(further or {}),
            }
        )
        return
    say(f"{arguments.place}: {message}{' (dry run: nothing is written)' if arguments.dry_run else ''}")
    names = [name for name in sorted(before | after) if arguments.verbose or before[name] != after[name]]
    if names and not is_quiet():
        rows = [(name, str(before[name]), str(after[name])) for name in names]
        rows.append(("all operators", str(before.total()), str(after.total())))
        table("", ("operator", "before", "after"), rows, right=("before", "after"))
