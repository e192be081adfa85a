"""Files of arrays that anybody may have written: no pickles, no bombs, one error that names the file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fuzz import contract

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage import arrays

WHAT = "holds no arrays"


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def npz(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, member in members.items():
            packed.writestr(f"{name}.npy", member)
    return out.getvalue()


def claiming(shape: str) -> bytes:
    """An array whose header says that it is larger than it is."""
    return npy(np.zeros(3)).replace(b"(3,)", shape.encode())


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", WHAT),
    "text": (lambda: b"no arrays", WHAT),
    "pickle": (lambda: npy(np.array([{"an": "object"}])), WHAT),
    "pickle inside": (lambda: npz(x=npy(np.array([{"an": "object"}]))), WHAT),
    "no array inside": (lambda: npz(x=b"text"), WHAT),
    "dates": (lambda: npz(x=npy(np.zeros(2, "M8[s]"))), WHAT),
    "truncated": (lambda: npz(x=npy(np.zeros(2)))[:-30], WHAT),
    "short": (lambda: npz(x=claiming("(30,)")), WHAT),
    "huge": (lambda: npz(x=claiming("(9223372036854775807, 8)")), WHAT),
    "negative": (lambda: npz(x=claiming("(-1,)")), WHAT),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_array_is_refused(case: str, tmp_path: Path) -> None:
    make, message = BROKEN[case]
    file = tmp_path / "x.npz"
    file.write_bytes(make())
    with pytest.raises(ModelFileError) as refused:
        arrays.read(file, WHAT)
    assert str(refused.value) == f"{file}: {message}"


def test_what_unpacks_to_more_than_a_model_may_hold_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bomb.npz"
    file.write_bytes(npz(x=npy(np.zeros(2**20)), y=npy(np.zeros(2))))
    assert file.stat().st_size < 2**14
    monkeypatch.setattr(arrays, "LARGEST", 2**23)
    with pytest.raises(ModelFileError, match=r"bomb.npz: unpacks to 8388880 bytes; at most 8388608 are read"):
        arrays.read(file, WHAT)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with contract.limited(3), pytest.raises(ModelFileError, match="it is no regular file"):
        arrays.read(tmp_path / "pipe.npz", WHAT)


def test_what_numpy_wrote_comes_back(tmp_path: Path) -> None:
    kept = {"x": np.arange(6.0).reshape(2, 3), "mask": np.array([True]), "text": np.array("{}")}
    np.savez_compressed(tmp_path / "x.npz", **kept, half=np.ones(3, ml_dtypes.bfloat16))
    found = arrays.read(tmp_path / "x.npz", WHAT)
    assert isinstance(found, dict)
    assert found.pop("half").dtype == ml_dtypes.bfloat16
    assert found.keys() == kept.keys()
    for name, array in kept.items():
        np.testing.assert_array_equal(found[name], array)
    np.save(tmp_path / "x.npy", kept["x"])
    np.testing.assert_array_equal(arrays.read(tmp_path / "x.npy", WHAT), kept["x"])
