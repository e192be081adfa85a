"""torch's own masks of five training-mode passes, recorded, against the exports that are in the repository."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.passes.expand import MASK_KEY
from onnx_spatialdrop.verify import Recording, verify
from onnx_spatialdrop.verify.expose import expose

DATA = Path(__file__).parents[1] / "data"
LAYERS = {"enet": 6, "erfnet": 4, "tcn": 6, "3-d_u-net": 4}
RUNTIMES = [
    "onnxruntime",
    "reference",
    pytest.param("openvino", marks=pytest.mark.openvino),
]

names = pytest.mark.parametrize("name", LAYERS)


@functools.cache
def expanded(name: str) -> ir.Model:
    return sd.expand(DATA / "torch" / f"{name}.onnx", form="mask-inputs")


def recording(name: str) -> Path:
    return DATA / "torch_masks" / f"{name}.npz"


def test_what_was_recorded() -> None:
    versions = json.loads((DATA / "torch_masks" / "versions.json").read_text())
    assert {Recording(recording(name)).framework for name in LAYERS} == {f"torch {versions['torch']} (recorded)"}


@names
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_mask_and_output_of_every_step(name: str, runtime: Any) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (pip install openvino)")
    result = verify(recording(name), expanded(name), runtime=runtime)
    assert result, str(result)
    assert (len(result.layers), result.steps) == (LAYERS[name], 5)
    assert sum(layer.equal for layer in result.layers) == sum(layer.entries for layer in result.layers) > 100
    assert sum(layer.dropped for layer in result.layers) > 40


@names
def test_the_recorded_masks_follow_the_known_rule(name: str) -> None:
    """mt19937, two 32-bit words an entry, the low 53 bits of both below ceil((1 - p) 2^53): torch on an AMD CPU."""
    ratios = {layer.name: layer.ratio for layer in expose(expanded(name)).layers}
    stream = np.random.RandomState(0)
    run = Recording(recording(name))
    for step in range(5):
        done = run.run(run.inputs, step)
        assert list(done.masks) == list(ratios)
        for layer, mask in done.masks.items():
            rate = round(ratios[layer], 6)  # the double that the module was given
            words = stream.randint(0, 2**32, 2 * mask.size, dtype=np.uint64)
            drawn = ((words[0::2] << np.uint64(32)) | words[1::2]) & np.uint64(2**53 - 1)
            assert ratios[layer] == np.float32(rate)
            np.testing.assert_array_equal(mask.reshape(-1), drawn < np.ceil((1 - rate) * 2**53))


@names
def test_a_wrong_scale_is_found_in_its_layer(name: str) -> None:
    model = sd.load(DATA / "torch" / f"{name}.onnx")
    found = sd.find(model)[2]
    found.node.attributes["scale"] = ir.AttrFloat32("scale", found.scale * 1.001)
    result = verify(recording(name), sd.expand(model, form="mask-inputs"), steps=2)
    assert result.first is not None
    assert (result.first.step, result.first.what) == (0, "value")
    assert found.name == f"{result.first.layer}/SpatialDropout"


def test_stripped_tags_are_told() -> None:
    model = expanded("tcn").clone()
    for node in model.graph:
        node.metadata_props.clear()
    with pytest.raises(VerifyError, match=r"behind 'blocks\.0\.drop1\.mask' have lost the tags"):
        verify(recording("tcn"), model)


def test_masks_that_reach_the_wrong_layer_are_found_by_name() -> None:
    model = expanded("tcn").clone()
    names = ["blocks.1.drop1.mask", "blocks.1.drop2.mask"]
    one, two = (value for value in model.graph.inputs if value.name in names)
    one.name, two.name = reversed(names)
    for node in model.graph:
        if node.metadata_props.get(MASK_KEY) in names:
            node.metadata_props[MASK_KEY] = names[1 - names.index(node.metadata_props[MASK_KEY])]
    result = verify(recording("tcn"), model)
    assert result.first is not None
    assert (result.first.step, result.first.layer, result.first.what) == (0, "blocks.1.drop1", "mask")
    assert result.notes == ("step 0, the framework's mask of 'blocks.1.drop1' is the model's of 'blocks.1.drop2'",)
