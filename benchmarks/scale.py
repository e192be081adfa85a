"""Measure passes on up to 100,000 nodes, and peers that remove Dropout from the same graph; writes docs/scale.md.

Run ``python benchmarks/scale.py``; with ``--write`` its tables go into docs/scale.md. Peers are measured where they are
installed (``pip install onnxslim onnxsim onnxoptimizer``). Each measurement is a process of its own: its peak memory is
what Linux says (VmHWM), and its time leaves out imports and, for one that takes a limit of seconds, ends at that.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from chains import PLAIN, chain
from long_networks import cnn, transformer
from scale_tasks import OURS, PROTOBUF, ROOT, passes, tasks

KINDS = {
    "spatial": "SpatialDropout",
    "off": "Dropout, off",
    "on": "Dropout, on",
    "cnn": "CNN",
    "transformer": "transformer",
}
#: "philox" writes hundreds of nodes for each dropout.
LARGEST = {"expand, philox": 10_000, "expand, philox-int32": 10_000}


def child(options: argparse.Namespace, *arguments: str) -> dict[str, float] | str:
    """Run one measurement; return what it says, or why there is nothing to say."""
    limit = options.limit
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("scale_tasks.py")), "--limit", str(limit)]
    command = [*options.under.split(), *program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode in (-signal.SIGPROF, 128 + signal.SIGPROF):  # the latter under a shell
        return f"not done after {limit:.0f} s"
    if done.returncode:
        return f"fails: {(done.stderr.strip().splitlines() or ['?'])[-1][:80]}"
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def files(options: argparse.Namespace, folder: str) -> dict[str, str]:
    """Write a chain or network of each kind; return the paths."""
    found = {kind: f"{folder}/{kind}.onnx" for kind in KINDS}
    for kind, file in found.items():
        networks = {"cnn": cnn, "transformer": transformer}
        made = networks[kind](options.nodes) if kind in networks else chain(options.nodes // (PLAIN + 1), kind)
        onnx.save(made, file)
    return found


def peers(options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of the comparison."""
    yield "| | " + " | ".join(f"{kind}: s | MB | left" for kind in KINDS.values()) + " |"
    yield "|---|" + "--:|" * 3 * len(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        sources = files(options, folder)
        for task in tasks():
            cells = []
            for kind, source in sources.items():
                package = task.split(",")[0].split(".")[0]
                if " " not in package and not _has(package):
                    cells += ["not installed", "", ""]
                    continue
                told = child(options, "--task", task, source, f"{folder}/out.onnx")
                if isinstance(told, str):
                    cells += [told, "", ""]
                else:
                    cells += [f"{told['cpu']:.2f}", f"{told['peak']:.0f}", f"{told['left']:,.0f}"]
                print(task, kind, cells[-3:], file=sys.stderr, flush=True)
            yield f"| {task} | " + " | ".join(cells) + " |"


def ratio(options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of the comparison with protobuf: both in turns, medians."""
    yield "| median, and all from least to most | " + " | ".join(KINDS.values()) + " |"
    yield "|---|" + "--:|" * len(KINDS)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = files(options, folder)
        for _ in range(options.repeats):
            for kind, source in sources.items():
                for task in (PROTOBUF, OURS):
                    told = child(options, "--task", task, source, f"{folder}/out.onnx")
                    if isinstance(told, str):
                        raise SystemExit(f"{task}: {told}")
                    found.setdefault((task, kind), []).append(told)
    for clock, unit in (("wall", "s"), ("cpu", "s of CPU time")):
        medians: dict[tuple[str, str], float] = {}
        for task in (PROTOBUF, OURS):
            cells = []
            for kind in KINDS:
                seconds = sorted(each[clock] for each in found[task, kind])
                medians[task, kind] = statistics.median(seconds)
                cells.append(f"{medians[task, kind]:.3f} ({seconds[0]:.3f} to {seconds[-1]:.3f})")
            yield f"| {task}, {unit} | " + " | ".join(cells) + " |"
        times = (f"{medians[OURS, kind] / medians[PROTOBUF, kind]:.2f}" for kind in KINDS)
        yield f"| times, in {unit} | " + " | ".join(times) + " |"


def linear(options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of the passes."""
    sizes = (options.nodes // 100, options.nodes // 10, options.nodes)
    yield "| pass | " + " | ".join(f"{size:,} nodes, s" for size in sizes) + " | last step: times |"
    yield "|---|" + "--:|" * (len(sizes) + 1)
    for name in passes(1):
        measured = [size for size in sizes if size <= LARGEST.get(name, size)]
        told = [child(options, "--pass", name, "--nodes", str(size)) for size in measured]
        print(name, told, file=sys.stderr, flush=True)
        cells = [each if isinstance(each, str) else f"{each['cpu']:.3f}" for each in told]
        seconds = [each["cpu"] for each in told if not isinstance(each, str)]
        cells += ["not measured"] * (len(sizes) - len(told))
        whole = len(seconds) == len(told) and seconds[-2] >= 0.001  # below that the clock says nothing
        cells.append(f"{seconds[-1] / seconds[-2]:.1f}" if whole else "")
        yield f"| {name} | " + " | ".join(cells) + " |"


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {"peers": peers, "ratio": ratio, "passes": linear}


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--limit", type=int, default=60, help="seconds of CPU time for a measurement (default: 60)")
    parser.add_argument("--repeats", type=int, default=9, help="of the comparison with protobuf (default: 9)")
    parser.add_argument("--under", default="", help="a command to run each measurement under, such as 'taskset 1'")
    parser.add_argument("--part", choices=list(PARTS), help="measure this part only")
    arguments = parser.parse_args()
    for name, rows in PARTS.items():
        if arguments.part in (None, name):
            text = "\n".join(rows(arguments)) + "\n"
            print(text)
            if arguments.write:
                put(name, f"{versions()}\n\n{text}")


def versions() -> str:
    """Return what was measured with."""
    packages = ("numpy", "onnx", "onnx_ir", "protobuf", "onnxslim", "onnxsim", "onnxoptimizer")
    modules = {package: "google.protobuf" if package == "protobuf" else package for package in packages}
    found = [f"{name} {importlib.metadata.version(name)}" for name, module in modules.items() if _has(module)]
    return f"Python {platform.python_version()}, {', '.join(found)}; one thread, seconds without imports."


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def put(name: str, text: str) -> None:
    """Write a part of docs/scale.md."""
    file = ROOT / "docs" / "scale.md"
    whole = file.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, rest = whole.split(begin)
    file.write_text(f"{head}{begin}{text}{rest[rest.index(end) :]}")


if __name__ == "__main__":
    main()
