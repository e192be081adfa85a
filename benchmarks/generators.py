"""What dropout costs in each form and kernel, against the same networks without it. Writes docs/forms_measured.md.

    python benchmarks/generators.py [--write] [--rounds 5] [NETWORK ...]

Ratios of processor time, one thread, batch 1: sessions are made and run in turns, so that a busy machine harms all
alike.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from native_timing import processor, software

import onnx_spatialdrop as sd

FORMS = ("native", "python", "body", "philox", "philox-int32", "uniform")
PAGE = Path(__file__).parents[1] / "docs" / "forms_measured.md"


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.log_severity_level, made.intra_op_num_threads, made.inter_op_num_threads = 4, 1, 1
    return made


def session(model: onnx.ModelProto, form: str) -> onnxruntime.InferenceSession:
    if form in ("native", "python"):
        return sd.session(model, form, sess_options=options())
    return onnxruntime.InferenceSession(model.SerializeToString(), options(), providers=["CPUExecutionProvider"])


def count(model: onnx.ModelProto) -> int:
    read = ir.from_proto(model)
    return sum(1 for scope in (read.graph, *read.functions.values()) for _ in scope.all_nodes())


def taken(function: Callable[[], Any], times: int = 1) -> float:
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times


def measure(name: str, rounds: int) -> list[str]:
    """Return the rows of one network."""
    (base, shape), (model, _) = (networks.NETWORKS[name](drop) for drop in (False, True))
    models = {"": base}
    for form in FORMS:
        models[form] = model if form in ("native", "python") else sd.attach(model) if form == "body" else None
        models[form] = models[form] or sd.expand(model, form=form)
    made: dict[str, list[float]] = {form: [] for form in models}
    sessions = {}
    for _ in range(rounds):
        for form, each in models.items():
            start = time.process_time()
            sessions[form] = session(each, form)
            made[form].append(time.process_time() - start)
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    ran: dict[tuple[str, bool], list[float]] = {(form, on): [] for form in models for on in (True, False)}

    def run(form: str, on: bool) -> None:
        feeds = {"x": x} if not form else {"x": x, "training_mode": np.array(on)}
        known = {value.name for value in sessions[form].get_overridable_initializers()}
        sessions[form].run(None, feeds | ({"step": np.array([3])} if "step" in known else {}))

    times = max(3, int(0.05 / max(taken(lambda: run("", True), 5), 1e-6)))
    for _ in range(rounds):
        for form, on in ran:
            ran[form, on].append(taken(lambda form=form, on=on: run(form, on), times))
    middle = statistics.median
    whole = middle(ran["", True] + ran["", False])
    rows = [f"| {name}, without | {count(base)} | {middle(made['']) * 1e3:.3g} ms | {whole * 1e3:.3g} ms | |"]
    for form in FORMS:
        ratios = (
            middle(made[form]) / middle(made[""]),
            middle(ran[form, True]) / whole,
            middle(ran[form, False]) / whole,
        )
        rows.append(f"| {form} | {count(models[form])} | {ratios[0]:.2f} x | {ratios[1]:.2f} x | {ratios[2]:.2f} x |")
    return rows


def main() -> None:
    logging.disable(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(networks.NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    lines = ["| | nodes | session | run, on | run, idle |", "|---|--:|--:|--:|--:|"]
    for name in given.networks:
        lines += measure(name, given.rounds)
        print("\n".join(lines), flush=True)
    if given.write:
        PAGE.write_text(PAGE_HEAD.format(machine=f"{processor()}; {software()}") + "\n".join(lines) + "\n")


PAGE_HEAD = """\
# What each form costs

Written by `python benchmarks/generators.py --write`; run it to have your own machine's figures. {machine}

Against the same network without dropout, one thread, batch 1, processor time, medians of interleaved rounds. Nodes are
those of the file, branches and functions included. The networks are in `benchmarks/networks.py`.

"""

if __name__ == "__main__":
    main()
