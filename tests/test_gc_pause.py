"""Garbage collection rests while models are worked on, and is afterwards as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.gc_pause import gc_paused


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    before = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if before else gc.disable)()


def test_it_rests_inside_and_goes_on_after() -> None:
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with gc_paused():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_it_goes_on_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        sd.load(tmp_path / "missing.onnx")
    assert gc.isenabled()


def test_it_rests_while_models_are_read_rewritten_and_written(tmp_path: Path) -> None:
    seen = []
    io.rewrite(dropout_model(), tmp_path / "out.onnx", lambda _: seen.append(gc.isenabled()))
    assert seen == [False]
    found: list[int] = []
    gc.callbacks.append(lambda phase, _: found.append(1) if phase == "start" else None)
    try:
        gc.set_threshold(1)
        model = dropout_ir()
        assert found  # nearly every object makes it look
        found.clear()
        sd.expand(model, form="philox", output=tmp_path / "philox.onnx")
        sd.load(tmp_path / "philox.onnx")
        assert len(found) < 100  # before and after, and not for each of thousands of objects
    finally:
        gc.callbacks.pop()
        gc.set_threshold(700, 10, 10)
    assert gc.isenabled()
    assert isinstance(model, ir.Model)
