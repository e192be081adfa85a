"""What one is told where Keras, or what its exporter needs, is not installed. Needs neither."""

from __future__ import annotations

import sys

import pytest

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.export.keras.backends import backend_of
from onnx_spatialdrop.export.tf2onnx import exporting


def test_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(SpatialDropError) as error:
        sdk.export(object())
    assert str(error.value) == 'keras is not installed: pip install "onnx_spatialdrop[keras]"'


def test_tensorflow_for_tf2onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SpatialDropError) as error, exporting():
        pass
    assert str(error.value) == 'tensorflow is not installed: pip install "onnx_spatialdrop[tf2onnx]"'


def test_a_backend_that_keras_has_no_exporter_for() -> None:
    with pytest.raises(SpatialDropError) as error:
        backend_of("openvino")
    assert str(error.value) == (
        "Keras runs on 'openvino', whose models it cannot export to ONNX; save the model, set KERAS_BACKEND=tensorflow "
        "before keras is imported, load it and export it there"
    )
