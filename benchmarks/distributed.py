"""Monte Carlo dropout on Ray Data beside a plain loop: time in steady state, start-up, and memory over growing data.

    python benchmarks/distributed.py [time] [memory]

Prints a table each. Needs ray[data]; a minute each on two cores. The processor's time is compared, not the clock's, so
that other work on the machine does not count.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import ray

import onnx_spatialdrop as sd
from onnx_spatialdrop.distributed import MonteCarloBatches

DIGITS = str(Path(__file__).resolve().parents[1] / "models" / "digits_torch.onnx")
BATCH = 1024
#: Rows at the begin and the end of a run that do not count.
EDGE = 4 * BATCH

IMAGES = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,3,512,512] x) => (float[N,5,64,64] logits)
<float[8,3,8,8] a, float[5,8,1,1] b>
{
  wide = Conv <strides = [8, 8]> (x, a)
  kept = Relu (wide)
  logits = Conv (kept, b)
}
"""


def timed(model: str, folder: str) -> type:
    """Return a class for map_batches that writes down when it was called, and what its process has taken till then."""

    class Timed:
        def __init__(self) -> None:
            self._run = MonteCarloBatches(model, inputs="image")
            self._file = Path(folder, str(os.getpid()))

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            begin, used = time.perf_counter(), time.process_time()
            made = self._run(batch)
            with self._file.open("a") as out:
                print(len(batch["id"]), begin, time.perf_counter(), used, time.process_time(), file=out)
            return made

    return Timed


def images_of(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an image for each id."""
    made = [np.random.default_rng(int(each)).random((1, 8, 8), np.float32) for each in batch["id"]]
    return {"id": batch["id"], "image": np.stack(made)}


def compare_time(rows: int = 30 * BATCH, rounds: int = 3) -> None:
    """Print processor time a row of a worker in Ray and of a loop, and how long a worker waits between batches."""
    plain = MonteCarloBatches(DIGITS, inputs="image")
    batches = [images_of({"id": np.arange(at, at + BATCH)}) for at in range(0, 4 * BATCH, BATCH)]
    plain(batches[0])
    begin = time.perf_counter()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    started = time.perf_counter() - begin
    print(f"{'round':>5} {'loop, ms':>9} {'worker, ms':>11} {'ratio':>6} {'waits':>6} {'first result, s':>16}")
    for index in range(rounds):
        used = time.process_time()
        for batch in batches:
            plain(batch)
        alone = (time.process_time() - used) / (len(batches) * BATCH)
        with tempfile.TemporaryDirectory() as folder:
            data = ray.data.range(rows, override_num_blocks=rows // BATCH)
            images = data.map_batches(images_of, batch_format="numpy").materialize()  # not in the worker that is timed
            begin = time.perf_counter()
            made = images.map_batches(
                timed(DIGITS, folder), batch_size=BATCH, batch_format="numpy", num_cpus=1, concurrency=1
            )
            first = 0.0
            for _ in made.iter_batches(batch_size=BATCH):
                first = first or time.perf_counter() - begin
            (file,) = Path(folder).iterdir()
            calls = np.loadtxt(file)[EDGE // BATCH : -EDGE // BATCH]
        counted = calls[1:, 0].sum()
        worker = (calls[-1, 4] - calls[0, 4]) / counted
        waits = 1 - (calls[1:, 2] - calls[1:, 1]).sum() / (calls[-1, 2] - calls[0, 2])
        print(f"{index:5} {1e3 * alone:9.3f} {1e3 * worker:11.3f} {worker / alone:6.3f} {waits:6.1%} {first:16.1f}")
    print(f"ray.init took {started:.1f} s")
    ray.shutdown()


class Memory:
    """The proportional set size of this process and all below it, and its largest value."""

    def __init__(self) -> None:
        self.largest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.largest = max(self.largest, sum(map(_bytes, _below(os.getpid()))))


def _below(root: int) -> list[int]:
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def _bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def large(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an image of 3 x 512 x 512 bytes for each id."""
    made = [np.random.default_rng(int(each)).integers(0, 256, (3, 512, 512), np.uint8) for each in batch["id"]]
    return {"id": batch["id"], "x": np.stack(made)}


def compare_memory(sizes: tuple[int, ...] = (250, 500, 1000, 2000)) -> None:
    """Print the most memory that all processes took together, over more and more images of 3 x 512 x 512 bytes."""
    model = onnx.parser.parse_model(IMAGES)
    rng = np.random.default_rng(0)
    for name, shape in (("a", (8, 3, 8, 8)), ("b", (5, 8, 1, 1))):
        array = rng.normal(scale=0.05, size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    with tempfile.TemporaryDirectory() as folder:
        file = str(sd.insert(model, Path(folder, "images.onnx"), after="kept", rate=0.3))
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=500 * 2**20)
        ray.data.DataContext.get_current().enable_progress_bars = False
        print(f"{'rows':>5} {'images, MiB':>12} {'at most, MiB':>13} {'s':>5}")
        for rows in sizes:
            begin = time.perf_counter()
            with Memory() as memory:
                from onnx_spatialdrop.distributed import monte_carlo_dataset

                data = ray.data.range(rows, override_num_blocks=rows // 16).map_batches(large, batch_size=16)
                made: Any = monte_carlo_dataset(
                    data,
                    file,
                    inputs="x",
                    batch_size=16,
                    actors=1,
                    samples=5,
                    task="segmentation",
                    statistics=["prediction", "entropy"],
                )
                count = sum(len(batch["id"]) for batch in made.iter_batches(batch_size=16))
            assert count == rows
            print(f"{rows:5} {rows * 0.75:12.0f} {memory.largest / 2**20:13.0f} {time.perf_counter() - begin:5.0f}")
        ray.shutdown()


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    chosen = sys.argv[1:] or ["time", "memory"]
    if "time" in chosen:
        compare_time()
    if "memory" in chosen:
        compare_memory()
