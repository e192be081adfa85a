"""predict_dataset: the rows of all batches, kept in a folder, so that what was stopped goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from building import dropout_model
from montecarlo.test_onefile import digits

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import ModelFileError


def test_batches_give_what_one_batch_gives() -> None:
    model, feeds = digits("digits_torch", 20)
    images = feeds["image"]
    mc = sd.MCDropout(model, samples=6)
    whole = mc.predict(images)
    parts = mc.predict_dataset([images[:7], images[7:8], images[8:]], progress=False)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-6)
    np.testing.assert_allclose(parts.mutual_information, whole.mutual_information, atol=1e-6)
    np.testing.assert_array_equal(parts.ids, np.arange(20))


def test_a_stopped_run_goes_on_by_ids_with_other_batches(tmp_path: Path) -> None:
    model, feeds = digits("digits_torch", 20)
    images, ids = feeds["image"], np.arange(20) * 7 + 3
    mc = sd.MCDropout(model, samples=6)

    def broken():
        yield images[:8]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mc.predict_dataset(broken(), [ids[:8]], folder=tmp_path / "run", progress=False)
    assert len(list((tmp_path / "run").glob("*.npz"))) == 1
    drawn = []
    draw = mc._engine.draw
    mc._engine.draw = lambda rows, *rest: drawn.append(len(rows.first)) or draw(rows, *rest)
    add = mc._engine.add
    mc._engine.add = lambda rows, *rest: drawn.append(len(rows.first)) or add(rows, *rest)
    batches = ([images[10:], images[:10]], [ids[10:], ids[:10]])
    rest = mc.predict_dataset(*batches, folder=tmp_path / "run", progress=False)
    assert drawn == [10, 2]
    whole = mc.predict(images, ids)
    np.testing.assert_array_equal(rest.ids, np.concatenate(batches[1]))
    np.testing.assert_allclose(rest.mean, whole.mean[np.r_[10:20, 0:10]], atol=1e-6)
    drawn.clear()
    again = mc.predict_dataset([images], [ids], folder=tmp_path / "run", progress=False)
    assert not drawn
    np.testing.assert_allclose(again.entropy, whole.entropy, atol=1e-6)


def test_a_folder_of_another_model_and_a_broken_part_are_refused(tmp_path: Path) -> None:
    model, feeds = digits("digits_torch", 4)
    sd.MCDropout(model, samples=6).predict_dataset([feeds], folder=tmp_path, progress=False)
    with pytest.raises(sd.SpecError, match="holds the results of another job"):
        sd.MCDropout(model, samples=7).predict_dataset([feeds], folder=tmp_path, progress=False)
    with pytest.raises(sd.SpecError, match="holds the results of another job"):
        sd.MCDropout(model, samples=6, seed=3).predict_dataset([feeds], folder=tmp_path, progress=False)
    next(tmp_path.glob("*.npz")).write_bytes(b"no")
    with pytest.raises(ModelFileError, match="remove it"):
        sd.MCDropout(model, samples=6).predict_dataset([feeds], folder=tmp_path, progress=False)


def test_ids_have_to_fit_the_batches() -> None:
    model, feeds = digits("digits_torch", 4)
    mc = sd.MCDropout(model, samples=6)
    with pytest.raises(sd.SpecError, match="more batches than ids"):
        mc.predict_dataset([feeds, feeds], [[0, 1, 2, 3]], progress=False)
    with pytest.raises(sd.SpecError, match="more ids than batches"):
        mc.predict_dataset([feeds], [[0, 1, 2, 3], [4]], progress=False)
    with pytest.raises(sd.SpecError, match="two rows"):
        mc.predict_dataset([feeds], [[0, 1, 2, 0]], progress=False)
    with pytest.raises(sd.SpecError, match="no batches"):
        mc.predict_dataset([], progress=False)


def test_a_batch_of_blank_rows_stops_nothing_and_blank_rows_alone_are_an_error() -> None:
    """What is dropped of blank rows is zero anyway, which says nothing of a data set that has others."""
    mc = sd.MCDropout(dropout_model(wrap=True, mask=False), task="regression")
    blank, other = np.zeros((3, 4, 2, 2), np.float32), np.ones((2, 4, 2, 2), np.float32)
    result = mc.predict_dataset([blank, other], progress=False)
    assert not result.variance[:3].any()
    assert result.variance[3:].any()
    with pytest.raises(sd.SpecError, match="dropout has no effect"):
        mc.predict_dataset([blank, blank], progress=False)
    mc.refuses_equal = False
    assert len(mc.predict_dataset([blank, blank], progress=False).ids) == 6
