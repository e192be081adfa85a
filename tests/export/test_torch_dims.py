"""Names of open dimensions become torch.export.Dim, one for each name, and nothing else changes."""

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from onnx_spatialdrop.export.torch import dims


def test_every_name_is_one_dimension_wherever_it_stands() -> None:
    shapes = {"x": {0: "batch", 2: torch.export.Dim.AUTO}, "more": [("batch", None, "width"), None]}
    made = dims.with_dims(shapes, {})
    batch = made["x"][0]
    assert batch.__name__ == "batch"
    assert made["x"][2] is torch.export.Dim.AUTO
    assert made["more"][0][0] is batch
    assert made["more"][0][1:2] == (None,)
    assert made["more"][0][2].__name__ == "width"
    assert made["more"][1] is None
    assert shapes["x"][0] == "batch"


def test_a_torch_that_knows_names_gets_them() -> None:
    if torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 does not know names")
    shapes = ({0: "batch"},)
    assert dims.named(shapes) is shapes
