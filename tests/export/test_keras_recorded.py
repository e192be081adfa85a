"""What export() made of Keras networks, recorded with Keras's own outputs: checked in every run, without Keras."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from keras_recordings import FOLDER, differences, paths

from onnx_spatialdrop import io
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.attach import attach, detach
from onnx_spatialdrop.passes.expand import expand
from onnx_spatialdrop.passes.remove import remove

ROOT = Path(__file__).parents[2]


def test_there_are_recordings_of_every_backend_and_the_versions_that_wrote_them() -> None:
    versions = json.loads((FOLDER / "versions.json").read_text())
    assert {path.stem.split("_")[0] for path in paths()} == set(versions) == {"jax", "tensorflow", "torch"}
    assert {found["keras"] for found in versions.values()} == {"3.15.1"}


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
class TestRecording:
    def test_the_output_is_keras_s_in_inference_and_with_keras_s_masks_forced_in(self, path: Path) -> None:
        found = differences(path)
        assert sorted(found) == ["inference", "step0", "step3"]
        assert max(found.values()) < 2e-5

    @pytest.mark.parametrize("form", ["python", "attached", "philox", "detached"])
    def test_every_form_of_the_operators_own_bits_gives_that_output(
        self, path: Path, form: str, tmp_path: Path
    ) -> None:
        model = io.load(path)
        if form == "attached":
            model = attach(model)
        elif form == "detached":
            model = detach(attach(model))
        elif form == "philox":
            model = expand(model, form="philox", target="onnxruntime")
        changed = io.save(model, tmp_path / path.name)
        shutil.copy(path.with_suffix(".npz"), tmp_path)
        found = differences(changed, kernel="python" if form == "python" else "body")
        assert max(found.values()) < 2e-5

    def test_the_masks_matter(self, path: Path) -> None:
        with np.load(path.with_suffix(".npz")) as arrays:
            outputs = [arrays[key] for key in ("inference", "step0", "step3")]
        assert not np.allclose(outputs[0], outputs[1])
        assert not np.allclose(outputs[1], outputs[2])

    def test_the_nodes_share_one_pair_of_switches_and_no_seed_and_say_where_they_come_from(self, path: Path) -> None:
        model = io.load(path)
        nodes = [site.node for site in spatial_dropouts(model)]
        assert len(nodes) >= 2
        assert [value.name for value in model.graph.inputs][1:] == ["training_mode", "step"]
        assert {tuple(value.name for value in node.inputs[1:] if value) for node in nodes} == {
            ("training_mode", "step")
        }
        assert len({op.read(node).seed for node in nodes}) == len(nodes)
        for node in nodes:
            rate = float(node.metadata_props["onnx_spatialdrop.rate"])
            assert op.read(node).ratio == np.float32(rate)
            assert op.read(node).scale == np.float32(1 / (1 - rate))
            assert (node.name or "").split(":")[0] == node.metadata_props["onnx_spatialdrop.layer"]

    def test_taking_the_nodes_out_leaves_the_nodes_of_keras_s_own_export_or_a_few_transposes_more(
        self, path: Path
    ) -> None:
        clean = remove(io.load(path))
        assert isinstance(clean, ir.Model)
        assert len(clean.graph.inputs) == 1
        with np.load(path.with_suffix(".npz")) as arrays:
            assert 0 <= clean.graph.num_nodes() - int(arrays["inference_nodes"]) <= 4


def test_the_table_in_the_document_lists_every_recording() -> None:
    text = (ROOT / "docs" / "exporters_keras.md").read_text()
    rows = re.findall(r"^\| (tensorflow|jax|torch), (\w+) \|", text, re.MULTILINE)
    assert sorted("_".join(row) for row in rows) == [path.stem for path in paths()]
