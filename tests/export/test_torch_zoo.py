"""Networks of timm, torchvision and transformers through both exporters: all dropout, named and drawn as torch does.

It takes minutes: pytest -m slow tests/export/test_torch_zoo.py, where these libraries are installed.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.library_networks import BEYOND_TORCH, NETWORKS, study
from export.torch_checks import exporters

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what three libraries warn of is not ours to fix


@exporters
@pytest.mark.parametrize("name", NETWORKS)
def test_all_dropout_of_a_network_is_in_the_file(name: str, dynamo: bool) -> None:
    library = name.split()[0]
    pytest.importorskip(library, reason=f"{library} is not installed: pip install {library}")
    if (name, dynamo) in BEYOND_TORCH:
        pytest.skip("torch cannot export it without this package either")
    found = study(name, dynamo)
    assert found.nodes == found.calls > 0
    assert found.names
    assert found.inference < 1e-4
    assert not found.verified
    assert not found.left_out
