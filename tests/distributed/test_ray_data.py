"""Ray Data: the same numbers for any number of actors, batches and blocks, and after an actor was killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import FOLDER

from onnx_spatialdrop.distributed import MonteCarloBatches, monte_carlo_dataset

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "onnx_spatialdrop[ray]"')
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

MODEL = str(FOLDER.resolve() / "digits_torch.onnx")
ROWS = 600
IMAGES = np.random.default_rng(3).random((ROWS, 8, 8), dtype=np.float32)
COLUMNS = ("prediction", "mean", "entropy", "mutual_information")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=6, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def dataset(blocks: int) -> Any:
    rows = [{"id": number, "image": image[None]} for number, image in enumerate(IMAGES)]
    return ray.data.from_items(rows, override_num_blocks=blocks)


def collected(result: Any) -> dict[str, np.ndarray]:
    rows = sorted(result.take_all(), key=lambda row: row["id"])
    return {name: np.stack([row[name] for row in rows]) for name in ("id", *COLUMNS)}


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return MonteCarloBatches(MODEL, inputs="image")({"id": np.arange(ROWS), "image": IMAGES[:, None]})


def assert_same(made: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name in ("id", *COLUMNS):
        np.testing.assert_array_equal(made[name], wanted[name], err_msg=name)


@pytest.mark.parametrize(
    ("actors", "size", "blocks"), [(1, 64, 4), (2, 64, 8), (2, 17, 5), (2, 1000, 1), (4, 7, 16), (4, 256, 3)]
)
def test_actors_batches_and_blocks_change_no_bit(
    alone: dict[str, np.ndarray], actors: int, size: int, blocks: int
) -> None:
    made = monte_carlo_dataset(dataset(blocks), MODEL, inputs="image", actors=actors, batch_size=size)
    assert_same(collected(made), alone)


def test_weights_in_a_file_of_their_own_change_no_bit(alone: dict[str, np.ndarray]) -> None:
    model = FOLDER.resolve() / "digits_external.onnx"
    assert_same(collected(monte_carlo_dataset(dataset(4), model, inputs="image", actors=2)), alone)


def test_a_killed_actor_loses_nothing(alone: dict[str, np.ndarray], tmp_path: Path) -> None:
    marks = tmp_path / "actors"
    marks.mkdir()
    killed: list[int] = []

    class Marked:
        """What people pass to map_batches themselves; says where it runs, and takes its time."""

        def __init__(self, model: str, marks: str) -> None:
            self._run, self._marks = MonteCarloBatches(model, inputs="image"), marks

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            Path(self._marks, str(os.getpid())).touch()
            time.sleep(0.2)
            return self._run(batch)

    def kill_the_first() -> None:
        for _ in range(600):
            time.sleep(0.1)
            if pids := sorted(int(mark.name) for mark in marks.iterdir()):
                time.sleep(0.5)
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
                return

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    made = dataset(12).map_batches(
        Marked, fn_constructor_args=(MODEL, str(marks)), batch_size=32, num_cpus=1, concurrency=2
    )
    result = collected(made)
    killer.join()
    assert killed
    assert_same(result, alone)


def test_a_job_with_a_checkpoint_goes_on(alone: dict[str, np.ndarray], tmp_path: Path) -> None:
    first = monte_carlo_dataset(dataset(4), MODEL, inputs="image", batch_size=50, checkpoint=tmp_path)
    assert first.take(1)  # the driver reads one row and goes
    stored = len(list(tmp_path.glob("*.npz")))
    assert stored
    made = monte_carlo_dataset(dataset(4), MODEL, inputs="image", batch_size=50, checkpoint=tmp_path)
    assert_same(collected(made), alone)
