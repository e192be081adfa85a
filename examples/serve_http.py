"""A server that says how sure it is: POST an image and an id, get the mean of 31 draws, and how far they differ.

    pip install "onnx_spatialdrop[serving]"
    MODEL=models/digits_torch.onnx uvicorn --app-dir examples serve_http:app

Requests that come at the same time run together, and each has steps of its own: its answer is the same to the last bit
alone and among others, and when it is asked again with its id.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import onnx_spatialdrop as sd

MODEL = os.environ.get("MODEL", "models/digits_torch.onnx")
#: Rows of every run, filled up: sums are rounded in another order in batches of another size.
ROWS = 8
#: Seconds that a request waits for others.
PATIENCE = 0.002
STATISTICS = ("prediction", "mean", "entropy", "mutual_information")


class Request(BaseModel):
    """One image; the same id draws the same masks."""

    id: int = Field(ge=0, lt=2**43 - 1)
    image: list[list[list[float]]]


class Batches:
    """Collects what is asked at the same time, and runs it together."""

    def __init__(self, model: str) -> None:
        self._network = sd.MCDropout(model)
        self._network.refuses_equal = False  # dropout may have no effect on a blank image
        self._shape = tuple(sd.session(model).get_inputs()[0].shape[1:])
        self._asked: asyncio.Queue[tuple[int, np.ndarray, asyncio.Future]] = asyncio.Queue()

    async def answer(self, number: int, image: np.ndarray) -> dict[str, object]:
        """Return the statistics of one image."""
        if image.shape != self._shape:
            raise HTTPException(422, f"image has shape {image.shape}; the model takes {self._shape}")
        done = asyncio.get_running_loop().create_future()
        await self._asked.put((number, image, done))
        return await done

    async def serve(self) -> None:
        """Run batches until it is cancelled."""
        while True:
            taken = [await self._asked.get()]
            await asyncio.sleep(PATIENCE)
            while len(taken) < ROWS and not self._asked.empty():
                taken.append(self._asked.get_nowait())
            try:
                made = await asyncio.to_thread(self.run, [row[0] for row in taken], [row[1] for row in taken])
            except Exception as error:  # noqa: BLE001 - those who asked are told
                made = [error] * len(taken)
            for (_, _, done), row in zip(taken, made, strict=True):
                if done.cancelled():  # whoever asked is gone
                    continue
                done.set_exception(row) if isinstance(row, Exception) else done.set_result(row)

    def run(self, numbers: list[int], images: list[np.ndarray]) -> list[dict[str, object]]:
        """Return the statistics of up to ROWS images."""
        rows = np.resize(np.arange(len(images)), ROWS)
        made = self._network.predict(np.stack(images)[rows], np.array(numbers)[rows])
        return [{name: getattr(made, name)[row].tolist() for name in STATISTICS} for row in range(len(images))]


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    app.state.batches = Batches(MODEL)
    task = asyncio.create_task(app.state.batches.serve())
    yield
    task.cancel()


app = FastAPI(title="How sure is it?", lifespan=_running)


@app.post("/uncertainty")
async def uncertainty(request: Request) -> dict[str, object]:
    """The class, its probabilities, and how unsure the network is, in nats."""
    return await app.state.batches.answer(request.id, np.array(request.image, np.float32))
