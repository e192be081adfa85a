"""Keras 3 networks through export(): one test a promise. Needs Keras and the packages of its backend."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from export.keras_checks import BACKEND, BEYOND_KERAS, close, keras, nodes, run, seeds_by_layer
from keras_networks import NETWORKS, STEPS, build, forced

from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.operator import node as op

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix

WORKING = [name for name in NETWORKS if (BACKEND, name) not in BEYOND_KERAS]
AXES = {
    "text_cnn": {"words": [1], "left": [1], "right": [1]},
    "text_lstm": {"words": [1], "states": [1]},
    "cnn2d": {"one": [1, 2], "two": [1, 2], "noise": [1, 2]},
    "cnn2d_channels_first": {"one": [2, 3], "two": [2, 3], "noise": [2, 3]},
    "unet3d": {"down/down_drop": [1, 2, 3], "deep/deep_drop": [1, 2, 3], "top/top_drop": [1, 2, 3]},
    "subclassed": {"shared": [1], "shared:1": [1], "inner/inside": [1]},
}


@pytest.fixture(scope="module", params=WORKING)
def exported(request: pytest.FixtureRequest) -> tuple[str, Any, np.ndarray, ir.Model]:
    model, x = build(request.param)
    return request.param, model, x, sdk.export(model, rng="philox")


def test_every_spatial_layer_becomes_a_node_on_the_switches_with_a_seed_of_its_own(exported: Any) -> None:
    name, _, _, model = exported
    found = nodes(model)
    assert sorted(found) == sorted(AXES[name])
    seeds = [op.read(node).seed for node in found.values()]
    assert len(set(seeds)) == len(seeds)
    for node in found.values():
        assert [value.name for value in node.inputs[1:]] == ["training_mode", "step"]
    assert [value.name for value in model.graph.inputs][1:] == ["training_mode", "step"]
    onnx.checker.check_model(ir.to_proto(model))


def test_axes_are_the_layers_or_where_tf2onnx_moved_a_transpose_those_behind_the_channels(exported: Any) -> None:
    name, _, _, model = exported
    moved = {layer: [axis + 1 for axis in axes] if axes[0] == 1 else axes for layer, axes in AXES[name].items()}
    got = {layer: list(op.read(node).axes) for layer, node in nodes(model).items()}
    assert all(axes in (AXES[name][layer], moved[layer]) for layer, axes in got.items())
    if BACKEND != "tensorflow" or name.startswith("text"):
        assert got == AXES[name]
    else:
        assert got == moved


def test_with_training_mode_false_the_output_is_keras_s_own(exported: Any) -> None:
    _, model, x, onnx_model = exported
    close(run(onnx_model, x), model(x, training=False))


@pytest.mark.parametrize("step", STEPS)
def test_with_training_mode_true_the_output_is_keras_s_with_the_same_masks_forced_in(exported: Any, step: int) -> None:
    _, model, x, onnx_model = exported
    with forced(seeds_by_layer(onnx_model), step):
        expected = keras.ops.convert_to_numpy(model(x, training=False))
    close(run(onnx_model, x, training_mode=True, step=np.array([step])), expected)
    assert not np.allclose(expected, keras.ops.convert_to_numpy(model(x, training=False)))


def test_one_step_a_sample_gives_each_sample_its_own_draw(exported: Any) -> None:
    _, _, x, model = exported
    together = run(model, x, training_mode=True, step=np.arange(len(x)))
    for index in range(len(x)):
        alone = run(model, x[index : index + 1], training_mode=True, step=np.array([index]))
        np.testing.assert_allclose(together[index : index + 1], alone, rtol=2e-5, atol=2e-5)


def test_inference_is_keras_s_own_export_and_op_adds_one_node_a_layer(exported: Any, tmp_path: Path) -> None:
    name, model, x, onnx_model = exported
    opset = onnx_model.opset_imports[""]
    model.export(str(tmp_path / "own.onnx"), format="onnx", verbose=False, opset_version=opset)
    own = onnx.load(tmp_path / "own.onnx")
    sdk.export(model, tmp_path / "ours.onnx", dropout="inference", opset_version=opset)
    ours = onnx.load(tmp_path / "ours.onnx")
    assert sorted(node.op_type for node in ours.graph.node) == sorted(node.op_type for node in own.graph.node)
    assert [(i.domain, i.version) for i in ours.opset_import] == [(i.domain, i.version) for i in own.opset_import]
    close(run(ir.from_proto(ours), x), run(ir.from_proto(own), x))
    extra = onnx_model.graph.num_nodes() - len(ours.graph.node) - len(AXES[name])
    # tf2onnx moves no rank-3 transpose through anything with two users; jax2onnx keeps one transpose more.
    assert extra == {("tensorflow", "text_cnn"): 4, ("jax", "text_cnn"): 1, ("jax", "text_lstm"): 1}.get(
        (BACKEND, name), 0
    )


@pytest.mark.parametrize(("name", "dropout"), [("cnn2d", "inference"), ("cnn2d", "op"), ("text_lstm", "op")])
def test_equal_models_give_equal_bytes(name: str, dropout: Any, tmp_path: Path) -> None:
    model, _ = build(name)
    first = sdk.export(model, tmp_path / "first.onnx", dropout=dropout).read_bytes()
    assert sdk.export(model, tmp_path / "second.onnx", dropout=dropout).read_bytes() == first


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, warnings; warnings.simplefilter('ignore'); from keras_networks import build; "
        "from onnx_spatialdrop.export import keras as sdk; sdk.export(build('cnn2d')[0], sys.argv[1])"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        env = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "KERAS_BACKEND": BACKEND,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        path = tmp_path / f"{hash_seed}.onnx"
        subprocess.run([sys.executable, "-c", script, str(path)], check=True, env=env, capture_output=True)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model, x = build("cnn2d")
    layer_class = keras.layers.Dropout
    before = [keras.ops.convert_to_numpy(weight) for weight in model.variables]
    call, output = layer_class.call, keras.ops.convert_to_numpy(model(x, training=False))
    written = {"train_function", "test_function", "predict_function"}  # set to None by Keras, whenever TensorFlow asks
    attributes = {layer.name: set(vars(layer)) - written for layer in model.layers}
    config = model.to_json()
    sdk.export(model, tmp_path / "model.onnx")
    assert layer_class.call is call
    assert model.to_json() == config
    assert {layer.name: set(vars(layer)) - written for layer in model.layers} == attributes
    for weight, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(x, training=False)), output)
