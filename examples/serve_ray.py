"""Ray Serve: requests that come at the same time run together, and each answer is the same alone and among others.

    pip install "onnx_spatialdrop" "ray[serve]"
    MODEL=models/digits_torch.onnx serve run --app-dir examples serve_ray:app

POST {"id": 7, "image": [...]} to http://localhost:8000/; serve_http.py says more.
"""

import asyncio
import os

import numpy as np
import onnxruntime
from ray import serve
from starlette.requests import Request

import onnx_spatialdrop as sd

#: Rows of every run, filled up: sums are rounded in another order in batches of another size.
ROWS = 8
STATISTICS = ("prediction", "mean", "entropy", "mutual_information")


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Uncertainty:
    """A replica, with a session of one thread: by itself every session takes all cores."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._network = sd.MCDropout(model, sess_options=options)
        self._network.refuses_equal = False  # dropout may have no effect on a blank image

    async def __call__(self, request: Request) -> dict[str, object]:
        """Answer one request."""
        asked = await request.json()
        return await self.answer(asked)

    @serve.batch(max_batch_size=ROWS, batch_wait_timeout_s=0.005)
    async def answer(self, asked: list[dict[str, object]]) -> list[dict[str, object]]:
        """Answer up to ROWS requests."""
        rows = np.resize(np.arange(len(asked)), ROWS)
        images, ids = np.array([each["image"] for each in asked], np.float32), np.array([each["id"] for each in asked])
        made = await asyncio.to_thread(self._network.predict, images[rows], ids[rows])
        columns = {name: getattr(made, name).tolist() for name in STATISTICS}
        return [
            {"together": len(asked)} | {name: column[row] for name, column in columns.items()}
            for row in range(len(asked))
        ]


app = Uncertainty.bind(os.path.abspath(os.environ.get("MODEL", "models/digits_torch.onnx")))
