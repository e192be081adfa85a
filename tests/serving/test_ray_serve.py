"""The Ray Serve example: answers are the same alone and among others."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import FOLDER

import onnx_spatialdrop as sd

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[serve]'")
serve = pytest.importorskip("ray.serve", reason="pip install 'ray[serve]'", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_ray.py"
IMAGES = np.random.default_rng(3).random((24, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[[int], dict[str, Any]]]:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "MODEL": str(FOLDER / "digits_torch.onnx")}
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"port": port, "location": "HeadOnly"})
    spec = importlib.util.spec_from_file_location("__main__", EXAMPLE)  # by value: workers have no such module
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    serve.run(module.app, route_prefix="/")

    def post(row: int) -> dict[str, Any]:
        body = json.dumps({"id": 5 * row, "image": IMAGES[row].tolist()}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/", body), timeout=60) as answer:
            return json.load(answer)

    yield post
    serve.shutdown()
    ray.shutdown()


def test_answers_do_not_depend_on_the_batch(ask: Callable[[int], dict[str, Any]]) -> None:
    alone = [ask(row) for row in range(len(IMAGES))]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(len(IMAGES))))
    assert {each.pop("together") for each in alone} == {1}
    assert max(each.pop("together") for each in together) > 1
    assert together == alone  # each number, to the last bit
    wanted = sd.MCDropout(FOLDER / "digits_torch.onnx").predict(IMAGES, 5 * np.arange(len(IMAGES)))
    np.testing.assert_allclose([each["mean"] for each in alone], wanted.mean, atol=1e-6)
