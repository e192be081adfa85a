"""``uncertainty``: run a model's draws over arrays, hold them against labels, and draw a page of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.cli import given
from onnx_spatialdrop.cli.montecarlo import add_options, chosen
from onnx_spatialdrop.cli.terminal import print_json, say, show, table, working
from onnx_spatialdrop.cli.verbs import Verbs, add_kernel, added
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.metrics.judged import JudgedClasses, JudgedValues, judge_classes, judge_values
from onnx_spatialdrop.montecarlo import MCDropout
from onnx_spatialdrop.montecarlo.result import MCResult, Statistics
from onnx_spatialdrop.plots.page import page
from onnx_spatialdrop.plots.result import pictures
from onnx_spatialdrop.storage import arrays, files

__all__ = ["add"]

Array = npt.NDArray[Any]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "uncertainty")
    verb.add_argument("input", metavar="INPUT", help="an .onnx file")
    verb.add_argument("--inputs", metavar="FILE", required=True, help="inputs: .npz by name, or .npy for a single one")
    verb.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help="run on Ray: at an address, or here; --inputs is a folder of .npz files or of images, or a Parquet file",
    )
    verb.add_argument("--white", type=int, choices=[1, 255], default=1, help="of images, with --ray (default: 1)")
    verb.add_argument("--labels", metavar="FILE", help="the truth: .npy, or .npz with an array 'labels'")
    add_options(verb)
    verb.add_argument("--tolerance", type=float, help="samples stop when the mean's standard error is below it")
    verb.add_argument("--seed", type=int, help="new seeds for the nodes (default: the file's)")
    verb.add_argument("--batch", type=int, help="samples at once (default: 32; with --ray up to 1024)")
    add_kernel(verb)
    verb.add_argument("--resume", metavar="FOLDER", help="keep what is done there, and go on where a run was stopped")
    verb.add_argument("--out", metavar="FILE", help="write mean, variance, entropies and so on there (.npz)")
    verb.add_argument("--plot", metavar="FILE", help="write a page of pictures there (.html); needs matplotlib")
    verb.set_defaults(run=_run)


@dataclass(frozen=True)
class _Run:
    """What the command line asked for, done."""

    result: MCResult
    inputs: Mapping[str, Array]
    labels: Array | None
    judged: JudgedClasses | JudgedValues | None
    notes: list[str] = field(default_factory=list)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.batch is not None and arguments.batch < 1:
        raise SpecError(f"--batch is {arguments.batch}; it must be 1 or more")
    if arguments.ray is not None:
        from onnx_spatialdrop.cli import uncertainty_ray

        return uncertainty_ray.run(arguments)
    done = _done(arguments)
    first = done.result.first
    shown = {"draws a sample": f"{done.result.samples.mean():g}"} | _described(first) | _figures(done.judged)
    if arguments.out:
        _write_arrays(Path(arguments.out), done.result)
    if arguments.plot:
        _write_page(arguments, done, shown)
    if arguments.json:
        figures = done.judged.figures if done.judged is not None else {}
        print_json({"file": arguments.input, "task": first.task, "samples": done.result.samples.tolist(), **figures})
        return 0
    table(arguments.input, ("what", "value"), list(shown.items()), right=("value",))
    show(*(f"note: {note}" for note in done.notes))
    for written in (arguments.out, arguments.plot):
        if written:
            say(f"wrote {written}")
    return 0


def _done(arguments: argparse.Namespace) -> _Run:
    mc = MCDropout(
        arguments.input,
        arguments.samples,
        arguments.seed,
        **chosen(arguments),
        tolerance=arguments.tolerance,
        kernel=arguments.kernel,
    )
    inputs = given.inputs(arguments.inputs, mc.inputs)
    rows = len(inputs[mc.batch]) if mc.batch in inputs else 0
    labels = None if arguments.labels is None else _labels(arguments.labels)
    if labels is not None and len(labels) != rows:
        raise SpecError(f"{arguments.labels}: holds {len(labels)} labels; there are {rows} samples")
    with working() as work:
        work.stage(f"drawing {arguments.samples} times")
        result = mc.predict_dataset(
            _batches(inputs, rows, arguments.batch or 32, work.copied), folder=arguments.resume, progress=False
        )
    notes = list(mc.notes)
    if mc.ends:
        notes.append(f"draws ran one by one: at {mc.ends}")
    return _Run(result, inputs, labels, _judge(result.first, labels), notes)


def _batches(
    inputs: Mapping[str, Array], rows: int, size: int, tell: Callable[[int, int], None]
) -> Iterator[dict[str, Array]]:
    """Yield the inputs in batches; what has another first size goes along whole."""
    for start in range(0, rows, size):
        tell(start, rows)
        yield {name: array[start : start + size] if len(array) == rows else array for name, array in inputs.items()}
    tell(rows, rows)


def _labels(file: str) -> Array:
    found = given.read(file)
    if not isinstance(found, dict):
        return found
    if "labels" not in found:
        raise SpecError(f"{file}: has no array 'labels'; it has {', '.join(found)}")
    return found["labels"]


def _judge(first: Statistics, labels: Array | None) -> JudgedClasses | JudgedValues | None:
    if labels is None:
        return None
    if first.task == "regression":
        return judge_values(first.mean, np.maximum(first.variance, 1e-12), labels.reshape(first.mean.shape))
    if first.task == "binary":
        mean = np.stack([1 - first.mean, first.mean], axis=-1)
        return judge_classes(mean, first.entropy, first.mutual_information, labels.reshape(first.mean.shape))
    return judge_classes(first.mean, first.entropy, first.mutual_information, labels, first.axis)


def _described(first: Statistics) -> dict[str, str]:
    """Return what can be said without labels."""
    if first.task == "regression":
        return {"samples": f"{len(first.mean):,}", "mean standard deviation": f"{first.std.mean():.4g}"}
    return {
        "samples": f"{len(first.mean):,}",
        "mean entropy, nats": f"{first.entropy.mean():.4f}",
        "mean mutual information, nats": f"{first.mutual_information.mean():.4f}",
    }


def _figures(judged: JudgedClasses | JudgedValues | None) -> dict[str, str]:
    figures = {} if judged is None else judged.figures
    return {name: f"{int(value):,}" if name == "rows" else f"{value:.4f}" for name, value in figures.items()}


def _write_arrays(file: Path, result: MCResult) -> None:
    """Write every statistic of every output, by name."""
    several = len(result) > 1
    made: dict[str, Array] = {"ids": result.ids, "samples": result.samples}
    for name, each in result.items():
        for statistic in each.available():
            made[f"{name}_{statistic}" if several else statistic] = getattr(each, statistic)
    arrays.write(file, made)


def _write_page(arguments: argparse.Namespace, done: _Run, shown: Mapping[str, str]) -> None:
    draws = f"{done.result.samples.mean():g} draws a sample"
    notes = [
        f"{draws}. The entropy of a mean of few draws is too small: compare entropies of equal numbers of draws alone.",
        *done.notes,
    ]
    sections = pictures(done.result.first, done.judged, dict(done.inputs), done.labels)
    with files.replacing(Path(arguments.plot)) as out:
        out.stream.write(page(f"How sure is {Path(arguments.input).name}?", notes, shown, sections).encode())
