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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from chains import PLAIN, chain

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PEERS = ("onnxslim", "onnxsim", "onnxoptimizer")
FORMS = ("identity", "uniform", "dropout")


def tasks() -> dict[str, Callable[[str, str], object]]:
    """Return what is measured: functions of a file to read and one to write."""

    def by_protobuf(source: str, target: str) -> None:
        with open(source, "rb") as file:
            model = onnx.ModelProto.FromString(file.read())
        with open(target, "wb") as file:
            file.write(model.SerializeToString())
            file.flush()
            os.fsync(file.fileno())

    def by_ir(source: str, target: str) -> None:
        import onnx_ir as ir

        ir.save(ir.load(source), target)

    def to_inference(source: str, target: str) -> None:
        import onnx_spatialdrop as sd

        sd.to_inference(source, target)

    def the_long_way(source: str, target: str) -> None:
        import onnx_spatialdrop as sd

        sd.save(sd.to_inference(sd.load(source)), target)

    def slim(source: str, target: str) -> None:
        import onnxslim

        onnxslim.slim(source, target)

    def sim(source: str, target: str) -> None:
        import onnxsim

        onnx.save(onnxsim.simplify(onnx.load(source))[0], target)

    def optimizer(source: str, target: str) -> None:
        import onnxoptimizer

        onnx.save(onnxoptimizer.optimize(onnx.load(source)), target)

    return {
        "parse and write with protobuf": by_protobuf,
        "load and save with onnx_ir": by_ir,
        "onnx_spatialdrop.to_inference, path to path": to_inference,
        "onnx_spatialdrop.to_inference, through onnx_ir": the_long_way,
        "onnxoptimizer, its default passes": optimizer,
        "onnxslim": slim,
        "onnxsim": sim,
    }


def passes(drops: int) -> dict[str, Callable[[Any], object]]:
    """Return the passes, which take an ir.Model of a chain of ``drops`` dropouts."""
    import onnx_spatialdrop as sd
    from onnx_spatialdrop.cli.inspect import runs_where
    from onnx_spatialdrop.passes.attach import AttachPass, DetachPass
    from onnx_spatialdrop.passes.expand import ExpandPass
    from onnx_spatialdrop.passes.find import find_nodes
    from onnx_spatialdrop.passes.fuse import FusePass
    from onnx_spatialdrop.passes.insert import InsertPass
    from onnx_spatialdrop.passes.remove import RemovePass
    from onnx_spatialdrop.passes.seeds import SeedsPass
    from onnx_spatialdrop.passes.to_inference import InferencePass

    return {
        "find": find_nodes,
        "check": sd.check,
        "inspect": lambda model: (find_nodes(model), runs_where(model)),
        "remove": RemovePass().call,
        "to_inference": InferencePass().call,
        "fuse": FusePass(elementwise=True).call,
        "insert": InsertPass([f"r{i}_0" for i in range(drops)]).call,
        "seeds": SeedsPass(1).call,
        "attach": AttachPass().call,
        "detach": DetachPass().call,
        **{f"expand, {form}": ExpandPass(form).call for form in FORMS},
    }


def measure_pass(name: str, drops: int) -> None:
    """Run one pass and print its seconds."""
    from onnx_spatialdrop import io
    from onnx_spatialdrop.passes.attach import AttachPass

    run = passes(drops)[name]
    model = io.from_proto(chain(drops, "on" if name == "fuse" else "spatial"))
    if name == "detach":
        AttachPass().call(model)
    start = time.perf_counter()
    run(model)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def child(options: argparse.Namespace, *arguments: str) -> dict[str, Any] | str:
    """Run this file for one measurement; return what it says, or why there is nothing to say."""
    limit = options.limit
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*options.under.split(), sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode in (-signal.SIGALRM, 128 + signal.SIGALRM):  # the latter under a shell
        return f"not done after {limit:.0f} s"
    if done.returncode:
        return f"fails: {(done.stderr.strip().splitlines() or ['?'])[-1][:80]}"
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure(task: str, source: str, target: str) -> None:
    """Run one task and print seconds, peak memory in MB and what is left of dropout."""
    run, start = tasks()[task], time.perf_counter()
    if "onnx_spatialdrop" in task:
        import onnx_spatialdrop  # noqa: F401 - before the clock starts
    elif task.startswith(PEERS):
        importlib.import_module(task.split(",")[0])
    start = time.perf_counter()
    run(source, target)
    seconds = time.perf_counter() - start
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    left = sum("Dropout" in node.op_type for node in onnx.load(target).graph.node)
    print(json.dumps({"seconds": seconds, "peak": int(peak) / 1024, "left": left}))


def table(options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of the comparison."""
    drops = options.nodes // (PLAIN + 1)
    yield "| | " + " | ".join(f"{k}: s | MB | left" for k in ("SpatialDropout", "Dropout, off", "Dropout, on")) + " |"
    yield "|---|" + "--:|" * 9
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("spatial", "off", "on"):
            onnx.save(chain(drops, kind), f"{folder}/{kind}.onnx")
        for task in tasks():
            cells = []
            for kind in ("spatial", "off", "on"):
                package = task.split(",")[0].split(".")[0]
                if " " not in package and not _has(package):
                    cells += ["not installed", "", ""]
                    continue
                told = child(
                    options,
                    "--limit",
                    str(options.limit),
                    "--task",
                    task,
                    f"{folder}/{kind}.onnx",
                    f"{folder}/out.onnx",
                )
                if isinstance(told, str):
                    cells += [told, "", ""]
                else:
                    cells += [f"{told['seconds']:.2f}", f"{told['peak']:.0f}", f"{told['left']:,}"]
                print(task, kind, cells[-3:], file=sys.stderr, flush=True)
            yield f"| {task} | " + " | ".join(cells) + " |"


def linear(options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of the passes."""
    sizes = (options.nodes // 100, options.nodes // 10, options.nodes)
    yield "| pass | " + " | ".join(f"{size:,} nodes, s" for size in sizes) + " | last step: times |"
    yield "|---|" + "--:|" * (len(sizes) + 1)
    for name in passes(1):
        told = [child(options, "--pass", name, "--nodes", str(size)) for size in sizes]
        seconds = [each["seconds"] for each in told if isinstance(each, dict)]
        if len(seconds) < len(sizes):
            yield f"| {name} | " + " | ".join(map(str, told)) + " | |"
            continue
        print(name, seconds, file=sys.stderr, flush=True)
        yield f"| {name} | " + " | ".join(f"{each:.3f}" for each in seconds) + f" | {seconds[-1] / seconds[-2]:.1f} |"


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--task", choices=list(tasks()), help=argparse.SUPPRESS)
    parser.add_argument("--pass", dest="one_pass", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, default=60, help="seconds that a measurement may take (default: 60)")
    parser.add_argument("--under", default="", help="a command to run each measurement under, such as 'taskset 1'")
    parser.add_argument("--part", choices=("peers", "passes"), help="measure this part only")
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        signal.alarm(arguments.limit)  # which ends the process
        measure(arguments.task, *arguments.files)
        return
    if arguments.one_pass:
        measure_pass(arguments.one_pass, arguments.nodes // (PLAIN + 1))
        return
    parts: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {"peers": table, "passes": linear}
    for name, rows in parts.items():
        if arguments.part in (None, name):
            text = "\n".join(rows(arguments)) + "\n"
            print(text)
            if arguments.write:
                put(name, f"{versions()}\n\n{text}")


def versions() -> str:
    """Return what was measured with."""
    packages = ("onnx", "onnx_ir", "protobuf", "onnxslim", "onnxsim", "onnxoptimizer")
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
