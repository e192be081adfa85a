"""``uncertainty --ray``: the same over a folder or a Parquet file, on Ray Data."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onnx_spatialdrop import errors, io
from onnx_spatialdrop.cli.montecarlo import chosen
from onnx_spatialdrop.cli.terminal import print_json, say, table, working
from onnx_spatialdrop.distributed import monte_carlo_dataset
from onnx_spatialdrop.distributed.sources import Images, dataset_of
from onnx_spatialdrop.errors import KernelError, SpecError
from onnx_spatialdrop.montecarlo import MCDropout
from onnx_spatialdrop.storage import arrays

__all__ = ["run"]

#: Ray's address of a cluster that this process starts and ends.
LOCAL = "local"
#: An error of ours in the text of one of Ray's.
_OURS = re.compile(rf"{re.escape(errors.__name__)}\.(\w+): (.+)")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    for name in ("labels", "plot"):
        if getattr(arguments, name):
            raise SpecError(f"--{name} wants all arrays in one place; with --ray write them with --out")
    model = os.path.abspath(arguments.input)
    options = chosen(arguments) | {name: getattr(arguments, name) for name in ("tolerance", "seed", "kernel")}
    # What is wrong is said before Ray starts.
    inputs = MCDropout(model, arguments.samples, **options | {"statistics": None}).inputs
    with working() as work, _ray(arguments.ray) as ray:
        work.stage(f"drawing {arguments.samples} times")
        made = monte_carlo_dataset(
            dataset_of(Path(arguments.inputs).absolute(), inputs, _images(model, inputs[0], arguments.white)),
            model,
            inputs={name: name for name in inputs},
            samples=arguments.samples,
            actors=(1, max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)),
            batch_size=arguments.batch,
            checkpoint=None if arguments.resume is None else os.path.abspath(arguments.resume),
            **options,
        )
        columns, means = _collected(made, keep=arguments.out is not None)
    if arguments.out:
        order = np.argsort(columns["id"], kind="stable")
        arrays.write(arguments.out, {name: column[order] for name, column in columns.items()})
    if arguments.json:
        print_json({"file": arguments.input, **means})
        return 0
    shown = [
        (name.replace("_", " "), f"{value:,}" if name == "rows" else f"{value:.4f}") for name, value in means.items()
    ]
    table(arguments.input, ("what", "value"), shown, right=("value",))
    if arguments.out:
        say(f"wrote {arguments.out}")
    return 0


def _images(model: str, name: str, white: int) -> Images:
    (value,) = [value for value in io.load(model).graph.inputs if value.name == name]
    sizes = () if value.shape is None else value.shape[1:]
    return Images(name, tuple(size if isinstance(size, int) else -1 for size in sizes), white)


@contextmanager
def _ray(address: str) -> Iterator[Any]:
    """Give the module ray, connected; what fails on a worker is raised as what it is."""
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise KernelError('Ray is not installed: pip install "onnx_spatialdrop[ray]"') from error
    own = {"num_cpus": max(2, os.cpu_count() or 1), "include_dashboard": False} if address == LOCAL else {}
    for name in ("ray", "ray.data"):  # which say what happens, and each fault with its whole stack
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    except ConnectionError as error:
        raise SpecError(f"--ray is {address!r}; no cluster answers there") from error
    except ray.exceptions.RayError as error:
        said = _OURS.findall(str(error))  # the cause is lost on its way here, but for its text
        if not said:
            raise
        raise getattr(errors, said[-1][0])(said[-1][1]) from None
    finally:
        ray.shutdown()


def _collected(made: Any, keep: bool) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the columns, if they are to be kept, and the number of rows and means of uncertainties."""
    columns: dict[str, list[np.ndarray]] = {}
    sums: dict[str, float] = {"rows": 0}
    for batch in made.iter_batches(batch_format="numpy"):
        sums["rows"] += len(batch["id"])
        for name, column in batch.items():
            if name.endswith(("entropy", "information", "variance", "std", "ratio")):
                sums[f"mean_{name}"] = sums.get(f"mean_{name}", 0) + column.reshape(len(column), -1).mean(axis=1).sum()
            if keep:
                columns.setdefault(name, []).append(column)
    means = {name: value if name == "rows" else float(value / sums["rows"]) for name, value in sums.items()}
    return {name: np.concatenate(parts) for name, parts in columns.items()}, means
