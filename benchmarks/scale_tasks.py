"""What scale.py measures; each run of this file is one measurement, and prints it as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from chains import PLAIN, chain

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PEERS = ("onnxslim", "onnxsim", "onnxoptimizer")
FORMS = ("identity", "uniform", "dropout", "philox", "philox-int32")
PROTOBUF, OURS = "parse and write with protobuf", "onnx_spatialdrop.to_inference, path to path"


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
        PROTOBUF: by_protobuf,
        "load and save with onnx_ir": by_ir,
        OURS: to_inference,
        "onnx_spatialdrop.to_inference, through onnx_ir": the_long_way,
        "onnxoptimizer, its default passes": optimizer,
        "onnxslim": slim,
        "onnxsim": sim,
    }


def passes(drops: int) -> dict[str, Callable[[Any], object]]:
    """Return the passes, which take an ir.Model of a chain of ``drops`` dropouts."""
    import onnx_spatialdrop as sd
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
        "remove": RemovePass().call,
        "to_inference": InferencePass().call,
        "fuse": FusePass(elementwise=True).call,
        "insert": InsertPass([f"r{i}_0" for i in range(drops)]).call,
        "seeds": SeedsPass(1).call,
        "attach": AttachPass().call,
        "detach": DetachPass().call,
        **{f"expand, {form}": ExpandPass(form).call for form in FORMS},
    }


def clocked(run: Callable[[], object]) -> dict[str, float]:
    """Run something and return the seconds that went by, and those of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(task: str, source: str, target: str) -> dict[str, float]:
    """Run one task; return its seconds, its peak memory in MB and how many dropouts are left."""
    run = tasks()[task]
    if "onnx_spatialdrop" in task:
        import onnx_spatialdrop as sd

        _ = sd.load, sd.save, sd.to_inference  # these import what they need: before the clock starts
    elif task.startswith(PEERS):
        importlib.import_module(task.split(",")[0])
    told = clocked(lambda: run(source, target))
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    left = sum("Dropout" in node.op_type for node in onnx.load(target).graph.node)
    return told | {"peak": int(peak) / 1024, "left": left}


def measure_pass(name: str, drops: int) -> dict[str, float]:
    """Run one pass; return its seconds."""
    from onnx_spatialdrop import io
    from onnx_spatialdrop.passes.attach import AttachPass

    run = passes(drops)[name]
    model = io.from_proto(chain(drops, "on" if name == "fuse" else "spatial"))
    if name == "detach":
        AttachPass().call(model)
    return clocked(lambda: run(model))


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, required=True, help="seconds of CPU time")
    parser.add_argument("--task", choices=list(tasks()))
    parser.add_argument("--pass", dest="one_pass")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("files", nargs="*")
    arguments = parser.parse_args()
    signal.setitimer(signal.ITIMER_PROF, arguments.limit)  # which ends the process
    if arguments.task:
        told = measure(arguments.task, *arguments.files)
    else:
        told = measure_pass(arguments.one_pass, arguments.nodes // (PLAIN + 1))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
