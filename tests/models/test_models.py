"""The committed digits models: valid files that agree with their frameworks, and what exporters wrote."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from zoo import FOLDER, RECORDED, attached, feeds, path, record, session

import onnx_spatialdrop as sd

EXPORTS = ("digits_torch_eval_export", "digits_torch_train_export", "digits_keras_eval_export")
INVALID = "digits_keras_train_export"
#: Logits are up to about 30. Sums in another order move them by a few ulps: under 1e-5 in float32, 0.01 in float16.
TOLERANCE = {"digits_float16": 0.03}


@pytest.mark.parametrize("name", [*RECORDED, *EXPORTS])
def test_every_file_is_valid_small_and_of_versions_that_onnxruntime_1_20_reads(name: str) -> None:
    onnx.checker.check_model(path(name), full_check=True)
    proto = onnx.load(path(name), load_external_data=False)
    assert proto.ir_version <= 10
    assert 18 <= {entry.domain: entry.version for entry in proto.opset_import}[""] <= 20
    assert path(name).stat().st_size < 300_000


def test_the_folder_is_small_and_names_nothing_of_the_machine_that_made_it() -> None:
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    for file in files:
        if file.suffix in {".onnx", ".json", ".md"}:
            assert re.search(rb"site-packages|/home/|/root/|/tmp/|\\.py\"", file.read_bytes()) is None, file


@pytest.mark.parametrize("name", RECORDED)
def test_eval_logits_and_accuracy_are_the_frameworks(name: str) -> None:
    known = record(name)
    (logits,) = session(attached(name)).run(["logits"], feeds(name, known.images))
    assert logits.dtype == known.images.dtype
    np.testing.assert_allclose(
        logits.astype(np.float64), known.logits.astype(np.float64), rtol=0, atol=TOLERANCE.get(name, 2e-5)
    )
    correct = int((logits.argmax(1) == known.labels).sum())
    assert correct == int((known.logits.argmax(1) == known.labels).sum())
    assert correct > 0.97 * len(known.labels)


def test_float16_stays_close_to_float32() -> None:
    half, full = record("digits_float16"), record("digits_torch")
    assert np.abs(half.logits.astype(np.float32) - full.logits).max() < 0.1
    assert (half.labels == full.labels).all()


def test_both_branches_give_the_recorded_logits_and_only_one_of_them_samples() -> None:
    known = record("digits_if")
    run = session(attached("digits_if"))
    plain = feeds("digits_if", known.images, training_mode=True, step=[3]) | {"monte_carlo": np.array(False)}
    masked = run.run(["logits"], plain)[0]  # the first node stands before the branch
    sampled = run.run(["logits"], plain | {"monte_carlo": np.array(True)})[0]
    assert (masked != sampled).any(axis=1).mean() > 0.9
    np.testing.assert_allclose(
        run.run(["logits"], plain | {"training_mode": np.array(False)})[0], known.logits, rtol=0, atol=2e-5
    )


def test_channels_are_shared_the_way_each_layout_has_them() -> None:
    axes = {name: [found.axes for found in sd.find(path(name))] for name in RECORDED}
    assert axes.pop("digits_keras") == [(1, 2)] * 3
    assert axes.pop("digits_keras_1d") == [(1,)] * 2
    assert axes.pop("digits_function") == [(2, 3)] * 2  # one of the two stands in the function and runs twice
    assert set(map(tuple, axes.values())) == {((2, 3),) * 3}


def test_seeds_are_unique_and_the_nodes_lie_where_the_names_say() -> None:
    for name in RECORDED:
        seeds = [found.seed for found in sd.find(path(name))]
        assert len(set(seeds)) == len(seeds)
    scopes = {name: [found.scope for found in sd.find(path(name))] for name in RECORDED}
    assert scopes["digits_if"] == ["", "/subgraph", "/subgraph"]
    assert scopes["digits_function"] == ["", "function digits::Stage"]
    assert {found.dtype for found in sd.find(path("digits_float16"))} == {"float16"}


def test_external_weights_stay_in_their_file() -> None:
    proto = onnx.load(path("digits_external"), load_external_data=False)
    outside = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        "digits_external.onnx.data"
    }
    held = {
        value.name: value.const_value.numpy() for value in sd.load(path("digits_external")).graph.initializers.values()
    }
    for value in sd.load(path("digits_torch")).graph.initializers.values():
        assert held[value.name].tobytes() == value.const_value.numpy().tobytes()


def test_without_its_nodes_digits_torch_is_the_exporters_own_eval_file() -> None:
    bare = sd.remove(onnx.load(path("digits_torch")))
    assert bare.SerializeToString(deterministic=True) == path("digits_torch_eval_export").read_bytes()


@pytest.mark.parametrize(
    ("name", "framework"), [("digits_torch_eval_export", "digits_torch"), ("digits_keras_eval_export", "digits_keras")]
)
def test_eval_exports_have_no_dropout_left_and_agree_with_the_framework(name: str, framework: str) -> None:
    model = sd.load(path(name))
    known = record(framework)
    assert not any("Random" in node.op_type or "Dropout" in node.op_type for node in model.graph)
    (output,) = model.graph.outputs
    (logits,) = session(model).run([output.name], {"image": known.images})
    np.testing.assert_allclose(logits, known.logits, rtol=0, atol=2e-5)


def test_the_train_export_of_torch_drops_maps_in_every_run_and_cannot_be_told_not_to() -> None:
    model = sd.load(path("digits_torch_train_export"))
    assert sum(node.op_type == "RandomUniformLike" for node in model.graph) == 3
    assert [value.name for value in model.graph.inputs] == ["image"]
    run, known = session(model), record("digits_torch")
    first, second = (run.run(None, {"image": known.images})[0] for _ in range(2))
    assert (first != second).any(axis=1).mean() > 0.9


def test_the_train_export_of_keras_is_not_a_valid_model() -> None:
    frozen = [node for node in onnx.load(path(INVALID)).graph.node if node.op_type == "StatelessRandomUniformV2"]
    assert len(frozen) == 3
    assert {node.domain for node in frozen} == {""}
    with pytest.raises(onnx.checker.ValidationError, match="StatelessRandomUniformV2"):
        onnx.checker.check_model(path(INVALID))
    with pytest.raises(Exception, match="StatelessRandomUniformV2"):
        ort.InferenceSession(path(INVALID), providers=["CPUExecutionProvider"])
