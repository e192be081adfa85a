"""Monte Carlo dropout: whole runs against one file and MCDropout. Processor time, one thread, interleaved, medians.

``python benchmarks/montecarlo.py [NETWORK:N[:ROUNDS] ...]``; networks are those of montecarlo_networks.py and "digits".
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from montecarlo_networks import NETWORKS

import onnx_spatialdrop as sd

SAMPLES = 31
MODELS = Path(__file__).parent.parent / "models"
DEFAULT = (
    "late:1:15", "late:8:5", "middle:1:5", "early:1:15", "early:16:5", "everywhere:1:9", "everywhere:8:5",
    "digits:1:41", "digits:16:21",
)  # fmt: skip
NAMES = ("mean", "variance", "entropy", "mutual_information")


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads, made.log_severity_level = 1, 3
    return made


def load(name: str, rows: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a network and its input for ``rows`` samples."""
    if name == "digits":
        model = onnx.load(MODELS / "digits_torch.onnx")
        return model, {"image": np.load(MODELS / "digits_torch.npz")["images"][:rows]}
    build, feed = NETWORKS[name]
    return build(), {"x": feed(np.random.default_rng(1), rows)}


def by_hand(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray], first: np.ndarray) -> dict[str, Any]:
    """Return mean, variance, entropy and mutual information of whole runs, as people write the loop."""
    on = {**feeds, "training_mode": np.array(True)}
    y = np.stack([session.run(None, {**on, "step": first + t})[0] for t in range(SAMPLES)])
    y = y - y.max(axis=2, keepdims=True)
    power = np.exp(y)
    total = power.sum(axis=2, keepdims=True)
    p, log_p = power / total, y - np.log(total)
    mean = p.mean(0)
    entropy = -(mean * np.log(np.maximum(mean, 1e-30))).sum(1)
    return {
        "mean": mean,
        "variance": p.var(0),
        "entropy": entropy,
        "mutual_information": entropy + (p * log_p).sum(2).mean(0),
    }


def medians(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median processor time of each, run one after the other, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(each)) for name, each in times.items()}


def main(name: str, rows: int, rounds: int) -> None:
    model, feeds = load(name, rows)
    model = sd.stratify(model)
    first = np.arange(rows) * (2**20 // 31 * 31)
    session = sd.session(model, sess_options=options())
    file = sd.session(sd.monte_carlo(model), sess_options=options())
    mc = sd.MCDropout(model, sess_options=options())
    halves = sd.split(model)
    prefix = sd.session(halves.prefix, sess_options=options()) if halves.prefix.graph.output else None
    taken = {} if prefix is None else {value.name: feeds[value.name] for value in prefix.get_inputs()}
    runs: dict[str, Callable[[], Any]] = {
        "whole runs": lambda: by_hand(session, feeds, first),
        "one file": lambda: dict(zip(NAMES, file.run(NAMES, {**feeds, "step": first}), strict=True)),
        "MCDropout": lambda: mc.predict(feeds),
        "inference": lambda: session.run(None, feeds),
    }
    if prefix is not None:
        runs["prefix"] = lambda: prefix.run(None, taken)
    expected = runs["whole runs"]()
    for each in ("one file", "MCDropout"):
        made = runs[each]()
        for key, value in expected.items():
            got = made[key] if isinstance(made, dict) else getattr(made, key)
            assert np.abs(got - value).max() < 2e-5, (each, key, np.abs(got - value).max())
    took = medians(runs, rounds)
    once = took.get("prefix", 0.0)
    each_draw = max(took["whole runs"] / SAMPLES - once, 1e-9)
    limit = took["whole runs"] / (once + SAMPLES * each_draw)
    whole = took["whole runs"]
    row = "  ".join(f"{each} {whole / took[each]:.2f} x" for each in ("one file", "MCDropout"))
    print(f"{name:10} N {rows:2}  whole runs {1e3 * whole:8.2f} ms  limit {limit:5.2f} x  {row}", flush=True)


if __name__ == "__main__":
    for argument in sys.argv[1:] or DEFAULT:
        network, number, *more = argument.split(":")
        main(network, int(number), int(more[0]) if more else 5)
