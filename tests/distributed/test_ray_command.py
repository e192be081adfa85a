"""``uncertainty --ray``: a folder of arrays or of images, and a Parquet file, give the numbers of a plain call."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from zoo import FOLDER

from onnx_spatialdrop.cli import main
from onnx_spatialdrop.distributed import MonteCarloBatches

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "onnx_spatialdrop[ray]"')
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

MODEL = str(FOLDER.resolve() / "digits_torch.onnx")
IMAGES = np.random.default_rng(3).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
PIXELS = IMAGES.astype(np.float32) * np.float32(1 / 255)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 150 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


def told(address: str, place: Path, out: Path, *more: str) -> dict[str, np.ndarray]:
    assert main(["uncertainty", MODEL, "--inputs", str(place), "--ray", address, "--out", str(out), "-q", *more]) == 0
    with np.load(out) as stored:
        return dict(stored)


def assert_same(made: dict[str, np.ndarray], ids: np.ndarray) -> None:
    wanted = MonteCarloBatches(MODEL, inputs="image")({"id": ids, "image": PIXELS})
    order = np.argsort(ids)
    assert set(made) == {"id", "prediction", "mean", "entropy", "mutual_information"}
    for name, column in made.items():
        np.testing.assert_array_equal(column, wanted[name][order], err_msg=name)


def test_a_folder_of_arrays_whose_ids_are_counted_or_given(address: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for start in (0, 20, 40):
        np.savez(data / f"{start:03}.npz", image=PIXELS[start : start + 20])
    assert_same(told(address, data, tmp_path / "out.npz"), np.arange(50))
    ids = np.random.default_rng(0).permutation(50) + 100
    for start in (0, 20, 40):
        np.savez(data / f"{start:03}.npz", image=PIXELS[start : start + 20], id=ids[start : start + 20])
    assert_same(told(address, data, tmp_path / "out.npz", "--resume", str(tmp_path / "job"), "--batch", "16"), ids)
    assert list((tmp_path / "job").glob("*.npz"))
    assert_same(told(address, data, tmp_path / "out.npz", "--resume", str(tmp_path / "job"), "--batch", "7"), ids)


def test_a_parquet_file(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"id": list(range(50)), "image": [pixels.reshape(-1).tolist() for pixels in PIXELS]}
    parquet.write_table(arrow.table(rows), tmp_path / "rows.parquet")
    assert_same(told(address, tmp_path / "rows.parquet", tmp_path / "out.npz", "--json"), np.arange(50))
    said = json.loads(capsys.readouterr().out)
    (tmp_path / "parts").mkdir()
    for part in (0, 1):
        half = {name: column[25 * part : 25 * part + 25] for name, column in rows.items()}
        parquet.write_table(arrow.table(half), tmp_path / "parts" / f"{part}.parquet")
    assert_same(told(address, tmp_path / "parts", tmp_path / "out.npz"), np.arange(50))
    assert said["rows"] == 50
    parquet.write_table(arrow.table({"image": rows["image"]}), tmp_path / "rows.parquet")
    arguments = ["uncertainty", MODEL, "--inputs", str(tmp_path / "rows.parquet"), "--ray", address]
    assert main(arguments) == 1
    assert "rows.parquet: has no column 'id'; it has image" in capsys.readouterr().err


def test_what_is_wrong_on_a_worker_is_one_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", other=PIXELS)
    assert main(["uncertainty", MODEL, "--inputs", str(tmp_path), "--ray", address]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'a.npz'}: has no array 'image'" in told
    assert len(told.splitlines()) == 1
    assert main(["uncertainty", MODEL, "--inputs", str(tmp_path / "a.npz"), "--ray", address]) == 1
    assert "a.npz: is neither a folder nor a Parquet file, which is what --ray takes" in capsys.readouterr().err
    assert main(["uncertainty", MODEL, "--inputs", str(tmp_path), "--ray", address, "--plot", "x.html"]) == 1
    assert "--plot wants all arrays in one place; with --ray write them with --out" in capsys.readouterr().err


def test_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason='Pillow is not installed: pip install "onnx_spatialdrop[ray]"')
    data = tmp_path / "data"
    (data / "deeper").mkdir(parents=True)
    for number, pixels in enumerate(IMAGES):
        image.fromarray(pixels[0]).save(data / ("deeper" if number < 10 else "") / f"{number:03}.png")
    names = sorted(data.rglob("*.png"))
    arguments = ["uncertainty", MODEL, "--inputs", str(data), "--ray", "--out", str(tmp_path / "out.npz"), "-q"]
    assert main(arguments) == 0  # on a cluster of its own
    assert_same(dict(np.load(tmp_path / "out.npz")), np.array([names.index(each) for each in _in_order(data)]))


def _in_order(data: Path) -> list[Path]:
    return [data / ("deeper" if number < 10 else "") / f"{number:03}.png" for number in range(len(IMAGES))]
