"""How programs of older versions of torch tell which module called; getattr(L['fn'], '1') is torch 2.6's."""

import pytest

from onnx_spatialdrop.export.torch.placeholders import qualified


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", ""),
        ("drop", "drop"),
        ("blocks.0.drop", "blocks.0.drop"),
        ("getattr(L['fn'], '1')", "1"),
        ("L['fn'].encoder.drop", "encoder.drop"),
        ("getattr(L['fn'].blocks, '1').drop", "blocks.1.drop"),
        ("getattr(getattr(L['self'].blocks, '0'), '12')", "blocks.0.12"),
    ],
)
def test_expressions_become_qualified_names(path: str, name: str) -> None:
    assert qualified(path) == name
