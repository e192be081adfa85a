"""Ray Data on two nodes, of which one dies: nothing is lost, nothing comes twice, and no bit is another."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import FOLDER

from onnx_spatialdrop.distributed import MonteCarloBatches

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "onnx_spatialdrop[ray]"')
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

MODEL = str(FOLDER.resolve() / "digits_torch.onnx")
ROWS = 960
IMAGES = np.random.default_rng(3).random((ROWS, 1, 8, 8), dtype=np.float32)
COLUMNS = ("id", "prediction", "mean", "entropy", "mutual_information")


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head with three CPUs, and a node with two."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = {"object_store_memory": 150 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False, **memory})
    cluster.add_node(num_cpus=2, resources={"doomed": 1}, **memory)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def dataset(blocks: int) -> Any:
    rows = [{"id": number, "image": image} for number, image in enumerate(IMAGES)]
    return ray.data.from_items(rows, override_num_blocks=blocks)


def test_a_node_that_dies_loses_nothing(nodes: Any, tmp_path: Path) -> None:
    class Slow:
        """Says on which node it runs, and takes its time, so that a node dies in the middle."""

        def __init__(self, model: str, marks: str) -> None:
            self._run, self._marks = MonteCarloBatches(model, inputs="image"), marks

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            node = ray.get_runtime_context().get_node_id()
            Path(self._marks, f"{node} {batch['id'].min()}").touch()
            time.sleep(0.3)
            return self._run(batch)

    (doomed,) = [node["NodeID"] for node in ray.nodes() if "doomed" in node["Resources"]]
    died = threading.Event()

    def kill() -> None:
        for _ in range(900):
            time.sleep(0.1)
            if len([mark for mark in tmp_path.iterdir() if mark.name.startswith(doomed)]) >= 3:
                (node,) = nodes.worker_nodes
                nodes.remove_node(node, allow_graceful=False)
                died.set()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    made = dataset(30).map_batches(
        Slow,
        fn_constructor_args=(MODEL, str(tmp_path)),
        batch_size=32,
        num_cpus=1,
        concurrency=4,
        scheduling_strategy="SPREAD",
    )
    rows = sorted(made.take_all(), key=lambda row: row["id"])
    killer.join()
    assert died.is_set()
    assert [node["Alive"] for node in ray.nodes() if node["NodeID"] == doomed] == [False]
    wanted = MonteCarloBatches(MODEL, inputs="image")({"id": np.arange(ROWS), "image": IMAGES})
    for name in COLUMNS:
        np.testing.assert_array_equal(np.stack([row[name] for row in rows]), wanted[name], err_msg=name)
