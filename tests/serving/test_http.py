"""The HTTP server of the examples, run by uvicorn: answers are the same alone and among others."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import FOLDER

import onnx_spatialdrop as sd

pytest.importorskip("fastapi", reason='FastAPI is not installed: pip install "onnx_spatialdrop[serving]"')
uvicorn = pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "onnx_spatialdrop[serving]"')

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_http.py"
IMAGES = np.random.default_rng(3).random((40, 1, 8, 8), dtype=np.float32)
IDS = [int(number) for number in np.random.default_rng(4).permutation(40) + 7]

Ask = Callable[[int, np.ndarray], dict[str, Any]]


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("serve_http", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MODEL = str(FOLDER / "digits_torch.onnx")
    return module


@pytest.fixture(scope="module")
def ask(example: Any) -> Iterator[Ask]:
    server = uvicorn.Server(uvicorn.Config(example.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    for _ in range(300):
        if server.started:
            break
        time.sleep(0.1)
    port = server.servers[0].sockets[0].getsockname()[1]

    def post(number: int, image: np.ndarray) -> dict[str, Any]:
        body = json.dumps({"id": number, "image": image.tolist()}).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/uncertainty", body, kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    yield post
    server.should_exit = True
    thread.join(30)


def test_answers_do_not_depend_on_the_batch(ask: Ask, example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], example.app.state.batches.run

    def counted(numbers: list[int], images: list[np.ndarray]) -> list[dict[str, object]]:
        sizes.append(len(numbers))
        return run(numbers, images)

    monkeypatch.setattr(example.app.state.batches, "run", counted)
    alone = [ask(number, image) for number, image in zip(IDS, IMAGES, strict=True)]
    assert set(sizes) == {1}
    sizes.clear()
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, IDS, IMAGES))
    assert max(sizes) > 1
    assert sum(sizes) == len(IDS)
    assert together == alone  # each number, to the last bit


def test_answers_are_those_of_mcdropout(ask: Ask) -> None:
    wanted = sd.MCDropout(FOLDER / "digits_torch.onnx").predict(IMAGES[:5], IDS[:5])
    for row in range(5):
        given = ask(IDS[row], IMAGES[row])
        np.testing.assert_allclose(given["mean"], wanted.mean[row], atol=1e-6)
        np.testing.assert_allclose(given["entropy"], wanted.entropy[row], atol=1e-5)


def test_the_same_id_twice_at_a_time(ask: Ask) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [5] * 8, [IMAGES[0]] * 8))
    assert all(answer == answers[0] for answer in answers)
    assert ask(6, IMAGES[0]) != answers[0]


@pytest.mark.parametrize(("number", "shape"), [(-1, (1, 8, 8)), (3, (1, 8, 7)), (2**63, (1, 8, 8))])
def test_what_does_not_fit_is_the_fault_of_one_request(ask: Ask, number: int, shape: tuple[int, ...]) -> None:
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, other, IMAGES[other]) for other in range(3)]
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(number, np.zeros(shape, np.float32))
        assert caught.value.code == 422
        caught.value.close()
        assert all(len(other.result()["mean"]) == 10 for other in others)
