"""Data frames: pandas as Spark's mapInPandas hands them over, and Dask's partitions."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from zoo import FOLDER

from onnx_spatialdrop.distributed import MonteCarloBatches

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own

IMAGES = np.random.default_rng(3).random((90, 64), dtype=np.float32)
IDS = np.random.default_rng(4).permutation(90)
uncertainty = MonteCarloBatches(str(FOLDER / "digits_torch.onnx"), inputs="image")


def frame() -> Any:
    return pandas.DataFrame({"id": IDS, "image": [row.tolist() for row in IMAGES]})


def of_frame(part: Any) -> Any:
    made = uncertainty({name: part[name].to_numpy() for name in ("id", "image")})
    return pandas.DataFrame({name: made[name] for name in ("id", "prediction", "entropy")}, index=part.index)


def of_frames(parts: Iterable[Any]) -> Iterator[Any]:
    yield from map(of_frame, parts)


def assert_whole(made: Any) -> None:
    wanted = uncertainty({"id": IDS, "image": IMAGES.reshape(-1, 1, 8, 8)})
    for name in ("id", "prediction", "entropy"):
        np.testing.assert_array_equal(made[name].to_numpy(), wanted[name])


def test_frames_one_after_the_other() -> None:
    whole = frame()
    assert_whole(pandas.concat(of_frames([whole[:17], whole[17:60], whole[60:]])))


@pytest.mark.parametrize("partitions", [1, 4])
def test_dasks_partitions(partitions: int) -> None:
    dask = pytest.importorskip("dask", reason="Dask is not installed: pip install 'dask[dataframe]'")
    dataframe = pytest.importorskip("dask.dataframe")
    meta = {"id": "i8", "prediction": "i8", "entropy": "f8"}
    with dask.config.set({"dataframe.convert-string": False}):
        lazy = dataframe.from_pandas(frame(), npartitions=partitions)
        assert_whole(lazy.map_partitions(of_frame, meta=meta).compute(scheduler="threads", num_workers=2))
