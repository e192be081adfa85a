"""Rows with ids: their numbers are their own, whatever batch they come in, and a job that stopped goes on."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from building import dropout_model
from zoo import FOLDER

import onnx_spatialdrop as sd
from onnx_spatialdrop.distributed import CheckpointedBatches, MonteCarloBatches
from onnx_spatialdrop.distributed.checkpoint import model_hash

MODEL = FOLDER / "digits_torch.onnx"
IMAGES = np.random.default_rng(3).random((70, 1, 8, 8), dtype=np.float32)
IDS = np.arange(70) * 3 + 5


def columns(rows: slice = slice(None)) -> dict[str, np.ndarray]:
    return {"id": IDS[rows], "image": IMAGES[rows], "label": IDS[rows] % 10}


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return MonteCarloBatches(MODEL, inputs="image", keep=["label"])(columns())


def test_the_columns_are_the_statistics_of_the_task_and_what_is_kept(whole: dict[str, np.ndarray]) -> None:
    assert list(whole) == ["id", "label", "prediction", "mean", "entropy", "mutual_information"]
    np.testing.assert_array_equal(whole["label"], IDS % 10)
    assert whole["mean"].shape == (70, 10)


def test_the_numbers_are_those_of_one_call(whole: dict[str, np.ndarray]) -> None:
    result = sd.MCDropout(MODEL).predict(IMAGES, IDS)
    np.testing.assert_allclose(whole["mean"], result.mean, atol=1e-6)
    np.testing.assert_allclose(whole["mutual_information"], result.mutual_information, atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 32, 64, 70])
def test_the_batch_changes_no_bit(whole: dict[str, np.ndarray], size: int) -> None:
    run = MonteCarloBatches(MODEL, inputs={"image": "image"}, keep=["label"])
    parts = [run(columns(slice(start, start + size))) for start in range(0, 70, size)]
    for name, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), column)


def test_the_order_of_rows_changes_no_bit(whole: dict[str, np.ndarray]) -> None:
    order = np.random.default_rng(0).permutation(70)
    shuffled = {name: column[order] for name, column in columns().items()}
    made = MonteCarloBatches(MODEL, inputs="image")(shuffled)
    np.testing.assert_array_equal(made["mean"], whole["mean"][order])


def test_an_instance_travels_as_a_pickle_open_or_not(whole: dict[str, np.ndarray]) -> None:
    run = MonteCarloBatches(MODEL, inputs="image", keep=["label"])
    for _ in range(2):
        run = pickle.loads(pickle.dumps(run))
        np.testing.assert_array_equal(run(columns())["mean"], whole["mean"])


def test_a_session_has_one_thread_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself every session takes all cores."""
    told, make = [], sd.MCDropout

    def seen(*given: Any, sess_options: ort.SessionOptions, **options: Any) -> sd.MCDropout:
        told.append((sess_options.intra_op_num_threads, sess_options.inter_op_num_threads))
        return make(*given, sess_options=sess_options, **options)

    monkeypatch.setattr("onnx_spatialdrop.distributed.batches.MCDropout", seen)
    MonteCarloBatches(MODEL, inputs="image")(columns(slice(2)))
    MonteCarloBatches(MODEL, inputs="image", threads=2)(columns(slice(2)))
    assert told == [(1, 1), (2, 2)]


def test_rows_that_would_meet_run_alone(tmp_path: Path) -> None:
    """Minus the mean of the batch: a row's numbers would be those of the rows that an engine put beside it."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> net (float[N,4] x) => (float[N,4] y) <int64[1] a = {0}> '
        "{ m = ReduceMean (x, a) d = Sub (x, m) s = Add (x, d) y = Mul (s, x) }"
    )
    file = sd.insert(model, tmp_path / "model.onnx", after="x", rate=0.5, axes=[])
    x = np.random.default_rng(0).random((6, 4), dtype=np.float32)
    run = MonteCarloBatches(file, inputs="x", task="regression")
    whole = run({"id": IDS[:6], "x": x})
    np.testing.assert_array_equal(run({"id": IDS[2:4], "x": x[2:4]})["mean"], whole["mean"][2:4])
    with pytest.raises(sd.SpecError, match=r"rows is 3, and it is not proven .* reduces over the samples; rows=1 is"):
        MonteCarloBatches(file, inputs="x", task="regression", rows=3)({"id": IDS[:6], "x": x})


def test_a_batch_without_any_effect_of_dropout_stops_nothing(tmp_path: Path) -> None:
    """What is dropped of blank rows is zero anyway; that is an error for a whole data set, and none for some of it."""
    model = sd.save(dropout_model(wrap=True, mask=False), tmp_path / "model.onnx")
    blank = np.zeros((3, 4, 2, 2), np.float32)
    with pytest.raises(sd.SpecError, match="dropout has no effect"):
        sd.MCDropout(model, task="regression").predict(blank)
    assert not MonteCarloBatches(model, inputs="x", task="regression")({"id": np.arange(3), "x": blank})[
        "variance"
    ].any()


def test_columns_of_objects_and_of_bytes_are_read(whole: dict[str, np.ndarray]) -> None:
    rows = np.empty(3, object)
    rows[:] = list(IMAGES[:3])
    made = MonteCarloBatches(MODEL, inputs="image")({"id": IDS[:3], "image": rows})
    np.testing.assert_array_equal(made["mean"], whole["mean"][:3])
    lists = np.empty(3, object)
    lists[:] = [image.reshape(-1).tolist() for image in IMAGES[:3]]  # as Spark and Parquet have them
    made = MonteCarloBatches(MODEL, inputs="image")({"id": IDS[:3], "image": lists})
    np.testing.assert_array_equal(made["mean"], whole["mean"][:3])
    bytes_ = (IMAGES[:3] * 255).astype(np.uint8)
    of_bytes = MonteCarloBatches(MODEL, inputs="image")({"id": IDS[:3], "image": bytes_})
    of_floats = MonteCarloBatches(MODEL, inputs="image")({"id": IDS[:3], "image": bytes_.astype(np.float32)})
    np.testing.assert_array_equal(of_bytes["mean"], of_floats["mean"])


def test_what_is_wrong_is_named() -> None:
    run = MonteCarloBatches(MODEL, inputs="image")
    with pytest.raises(sd.SpecError, match="the batch has no column 'id'; it has 'image'"):
        run({"image": IMAGES})
    with pytest.raises(sd.SpecError, match="column 'id' has an id twice"):
        run({"id": IDS * 0, "image": IMAGES})
    with pytest.raises(sd.SpecError, match="column 'id' is of type float64; ids are integers"):
        run({"id": IDS * 1.0, "image": IMAGES})
    with pytest.raises(sd.SpecError, match="statistics is 'median'; allowed: mean, variance"):
        MonteCarloBatches(MODEL, inputs="image", statistics=["median"])


class Counting(MonteCarloBatches):
    """Counts the rows that it computes."""

    rows = 0

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[override]
        self.rows += len(batch["id"])
        return super().__call__(batch)


def test_a_job_goes_on_where_it_stopped(whole: dict[str, np.ndarray], tmp_path: Path) -> None:
    CheckpointedBatches(tmp_path, MonteCarloBatches(MODEL, inputs="image", keep=["label"]))(columns(slice(0, 40)))
    counting = Counting(MODEL, inputs="image", keep=["label"])
    again = CheckpointedBatches(tmp_path, counting)
    parts = [again(columns(slice(start, start + 20))) for start in range(0, 70, 20)]
    assert counting.rows == 30  # batches of 20 and 10 that had not been computed
    for name, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), column)


def test_results_of_another_job_are_refused(tmp_path: Path) -> None:
    CheckpointedBatches(tmp_path, MonteCarloBatches(MODEL, inputs="image"))
    with pytest.raises(sd.SpecError, match="holds the results of another job: samples was 31 and is 62"):
        CheckpointedBatches(tmp_path, MonteCarloBatches(MODEL, inputs="image", samples=62))
    other = tmp_path / "other.onnx"
    sd.assign_seeds(MODEL, other, base=9)
    with pytest.raises(sd.SpecError, match="another job: model was"):
        CheckpointedBatches(tmp_path, MonteCarloBatches(other, inputs="image"))


def test_weights_in_another_file_are_part_of_the_model(whole: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(onnx.load(MODEL), model, save_as_external_data=True, location="weights.bin", size_threshold=128)
    made = MonteCarloBatches(model, inputs="image")(columns())
    np.testing.assert_array_equal(made["mean"], whole["mean"])
    before, weights = model_hash(model), bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert model_hash(model) != before


def test_a_broken_file_of_results_is_named(tmp_path: Path) -> None:
    checkpointed = CheckpointedBatches(tmp_path, MonteCarloBatches(MODEL, inputs="image"))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(sd.ModelFileError, match="broken.npz: is no file of results; remove it"):
        checkpointed(columns())


def test_the_job_says_what_the_numbers_depend_on(tmp_path: Path) -> None:
    CheckpointedBatches(tmp_path, MonteCarloBatches(MODEL, inputs="image", seed=4))
    job = json.loads((tmp_path / "job.json").read_text())
    assert set(job) == {"inputs", "model", "options", "rows", "samples", "statistics"}
    assert job["options"] == {"seed": "4"}
