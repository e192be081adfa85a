"""Keras 3 models through export(): one class a promise. Needs Keras and the packages of its backend."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from keras_networks import NETWORKS, STEPS, build, forced

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.scopes import spatial_dropouts
from onnx_spatialdrop.passes.seeds import derive_seeds
from onnx_spatialdrop.runtime.session import session

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # the frameworks' own, at import
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", reason='Keras is not installed: pip install "onnx_spatialdrop[keras]"')
    BACKEND = keras.backend.backend()
    for package in {"tensorflow": ["tensorflow", "tf2onnx"], "jax": ["jax2onnx"], "torch": ["torch", "onnxscript"]}[
        BACKEND
    ]:
        pytest.importorskip(package, reason=f"Keras's ONNX export on {BACKEND} needs {package}, which is not installed")

from onnx_spatialdrop.export import keras as sdk

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix

#: What Keras's own exporter cannot do today: (backend, network).
BEYOND_KERAS = {("jax", "unet3d"), ("torch", "unet3d")}
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
    return request.param, model, x, sdk.export(model)


def nodes(model: ir.Model) -> dict[str, ir.Node]:
    return {site.node.name: site.node for site in spatial_dropouts(model)}


def seeds_by_layer(model: ir.Model) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in sorted(nodes(model)):
        found.setdefault(name.split(":")[0].split("/")[-1], []).append(op.read(nodes(model)[name]).seed)
    return found


def run(model: ir.Model, x: np.ndarray, **switches: Any) -> np.ndarray:
    sess = session(model, kernel="body")
    feeds = {name: np.array(value) for name, value in switches.items()}
    first = sess.get_inputs()[0]
    wanted = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}[first.type]
    return sess.run(None, {first.name: x.astype(wanted), **feeds})[0]


def close(got: np.ndarray, expected: Any) -> None:
    expected = keras.ops.convert_to_numpy(expected)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


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


class TestSeeds:
    def test_a_layers_own_seed_becomes_the_nodes_and_others_are_derived(self) -> None:
        found = nodes(sdk.export(build("cnn2d")[0], seed=5))
        assert op.read(found["two"]).seed == 7
        derived = [op.read(found[name]).seed for name in ("one", "noise")]
        assert derived == derive_seeds(5, 2, frozenset({7}))

    def test_a_second_call_and_a_second_layer_with_that_seed_get_seeds_derived_from_it(self) -> None:
        found = nodes(sdk.export(build("subclassed")[0]))
        assert op.read(found["shared"]).seed == 5
        assert op.read(found["shared:1"]).seed == derive_seeds(5, 1, frozenset({5}))[0]

    def test_rate_seed_and_generator_state_are_on_the_node(self) -> None:
        model, _ = build("cnn2d")
        for name, node in nodes(sdk.export(model)).items():
            layer = model.get_layer(name)
            state = keras.ops.convert_to_numpy(layer.seed_generator.state.value)
            assert node.metadata_props["onnx_spatialdrop.layer"] == name
            assert node.metadata_props["onnx_spatialdrop.class"] == type(layer).__name__
            assert float(node.metadata_props["onnx_spatialdrop.rate"]) == layer.rate
            assert node.metadata_props["onnx_spatialdrop.keras_seed"] == repr(layer.seed)
            assert node.metadata_props["onnx_spatialdrop.keras_state"] == f"{state[0]},{state[1]}"
            assert op.read(node).ratio == np.float32(layer.rate)
            assert op.read(node).scale == np.float32(1 / (1 - layer.rate))


class TestWhatIsKept:
    def test_plain_dropout_is_left_out_unless_asked_for(self) -> None:
        model, x = build("cnn2d")
        assert "plain" not in nodes(sdk.export(model))
        whole = sdk.export(model, elementwise=True)
        assert op.read(nodes(whole)["plain"]).axes == ()
        with forced(seeds_by_layer(whole), 2):
            expected = model(x, training=False)
        close(run(whole, x, training_mode=True, step=np.array([2])), expected)

    def test_a_layer_called_with_training_true_is_switched_like_the_others(self) -> None:
        inputs = keras.Input((8, 4))
        dense = keras.layers.Dense(4)(inputs)
        twice = keras.layers.SpatialDropout1D(0.3, name="late")(
            keras.layers.SpatialDropout1D(0.3, name="always")(dense, training=True)
        )
        model = keras.Model(inputs, twice)
        x = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
        for dropout, count in (("op", 2), ("inference", 0)):
            onnx_model = sdk.export(model, dropout=dropout)
            assert len(nodes(onnx_model)) == count
            with forced({}, 0):
                close(run(onnx_model, x), model(x))

    def test_a_rate_of_zero_is_no_node_and_a_rate_of_one_drops_all(self) -> None:
        inputs = keras.Input((8, 4))
        x = keras.layers.SpatialDropout1D(0.0, name="none")(keras.layers.Dense(4, name="dense")(inputs))
        model = keras.Model(inputs, keras.layers.SpatialDropout1D(1.0, name="all")(x))
        onnx_model = sdk.export(model)
        assert list(nodes(onnx_model)) == ["all"]
        assert not run(onnx_model, np.ones((2, 8, 4)), training_mode=True, step=np.array([0])).any()

    def test_time_distributed_draws_anew_at_every_step_as_keras_does(self) -> None:
        inputs = keras.Input((3, 6, 6, 2))
        x = keras.layers.TimeDistributed(keras.layers.Conv2D(3, 3), name="conv")(inputs)
        model = keras.Model(inputs, keras.layers.TimeDistributed(keras.layers.SpatialDropout2D(0.5, name="drop"))(x))
        assert len({op.read(node).seed for node in nodes(sdk.export(model)).values()}) == 3

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras exports other types on TensorFlow only")
    @pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision_scales_in_the_layers_type(self, policy: str) -> None:
        dtype = {"b": np.dtype(ml_dtypes.bfloat16), "f": np.dtype(np.float16)}[policy.removeprefix("mixed_")[0]]
        inputs = keras.Input((8, 3))
        x = keras.layers.SpatialDropout1D(0.3, name="a", dtype=policy)(keras.layers.Dense(4, dtype=policy)(inputs))
        x = keras.layers.SpatialDropout1D(0.3, name="b", dtype=policy)(keras.layers.Dense(4, dtype=policy)(x))
        model = keras.Model(inputs, x)
        exported = sdk.export(model)
        for node in nodes(exported).values():
            assert op.numpy_dtype(node.inputs[0]) == dtype
            assert op.read(node).scale == float(np.asarray(1 / 0.7).astype(dtype))
        if dtype == np.float16:  # ONNX Runtime's MatMul has no bfloat16 on CPU
            x = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
            with forced(seeds_by_layer(exported), 3):
                expected = keras.ops.convert_to_numpy(model(x))
            got = run(exported, x, training_mode=True, step=np.array([3]))
            assert got.dtype == np.float16
            np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=4e-3, atol=4e-3)


class TestTraining:
    def test_it_expands_to_standard_ops_with_the_same_eval_output(self) -> None:
        model, x = build("text_cnn")
        trained = sdk.export(model, dropout="training", target="onnxruntime")
        assert not nodes(trained)
        assert "onnx_spatialdrop" not in trained.opset_imports
        close(run(trained, x), model(x, training=False))
        with forced(seeds_by_layer(sdk.export(model)), 3):
            expected = model(x, training=False)
        close(run(trained, x, training_mode=True, step=np.array([3])), expected)

    def test_without_a_target_it_is_for_onnxruntime_training(self) -> None:
        trained = sdk.export(build("text_cnn")[0], dropout="training", opset_version=18)
        kinds = [node.op_type for node in trained.graph if node.op_type in ("Dropout", "RandomUniformLike")]
        assert kinds == ["Dropout"] * 3


class TestRefusals:
    def check(self, layer: Any, message: str, shape: tuple[int | None, ...] = (8, 4), **options: Any) -> None:
        inputs = keras.Input(shape)
        model = keras.Model(inputs, layer(keras.layers.Dense(4)(inputs)), name="net")
        with pytest.raises(SpatialDropError) as error:
            sdk.export(model, **options)
        assert str(error.value) == message

    @pytest.mark.skipif(BACKEND == "torch", reason="while PyTorch traces, sizes are unknown")
    def test_a_noise_shape_that_does_not_fit(self) -> None:
        self.check(
            keras.layers.Dropout(0.5, noise_shape=(None, 3, 4), name="odd"),
            "layer 'odd': noise_shape (None, 3, 4) does not fit its input of shape ('?', 8, 4); every entry must be 1, "
            "None or the size of that axis",
        )

    def test_alpha_dropout_with_a_noise_shape(self) -> None:
        self.check(
            keras.layers.AlphaDropout(0.5, noise_shape=(None, 1, None), name="alpha"),
            "layer 'alpha': AlphaDropout replaces values by a constant and is no case of SpatialDropout, which keeps "
            'or zeroes; export with dropout="inference", or put a SpatialDropout or Dropout layer in its place',
        )

    def test_gaussian_dropout_when_element_wise_dropout_is_asked_for(self) -> None:
        self.check(
            keras.layers.GaussianDropout(0.5, name="gauss"),
            "layer 'gauss': GaussianDropout multiplies by noise and is no case of SpatialDropout, which keeps or "
            'zeroes; export with dropout="inference", or put a SpatialDropout or Dropout layer in its place',
            elementwise=True,
        )

    def test_something_that_is_no_keras_model(self) -> None:
        with pytest.raises(
            SpatialDropError, match=r"^export takes a keras.Model of Keras 3, not a builtins.int object$"
        ):
            sdk.export(3)

    def test_another_word_for_dropout(self) -> None:
        with pytest.raises(SpatialDropError, match=r"^dropout is 'train'; allowed: 'op', 'inference', 'training'$"):
            sdk.export(build("subclassed")[0], dropout="train")

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow vectorises it; the others fail in Keras")
    def test_time_distributed_over_an_unknown_number_of_steps(self) -> None:
        self.check(
            keras.layers.TimeDistributed(keras.layers.SpatialDropout1D(0.5, name="drop"), name="each"),
            "layer 'each/drop': it was called on rank 3, but the exporter vectorised it over one more axis (as "
            "TimeDistributed over an unknown number of steps does); give that number in input_signature",
            (None, 5, 4),
        )

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="what folds constants is tf2onnx")
    def test_dropout_on_a_constant_which_the_exporter_folds(self) -> None:
        class OnWeights(keras.layers.Layer):  # type: ignore[misc]
            def build(self, _shape: Any) -> None:
                self.kernel = self.add_weight(shape=(1, 4, 4), name="kernel")
                self.drop = keras.layers.SpatialDropout1D(0.5, name="connect")

            def call(self, x: Any) -> Any:
                return keras.ops.matmul(x, self.drop(self.kernel))

        self.check(
            OnWeights(name="custom"),
            "layer 'custom/connect': its dropout was traced but is not in the exported graph (the exporter folded or "
            "dropped it, as it does where the layer's input is a constant or its output is unused); export with "
            'dropout="inference", or take the layer out of the call',
        )

    @pytest.mark.parametrize("name", [name for backend, name in BEYOND_KERAS if backend == BACKEND])
    def test_what_keras_itself_cannot_export_says_so_and_where_it_can_be(self, name: str) -> None:
        with pytest.raises(SpatialDropError) as error:
            sdk.export(build(name)[0])
        assert str(error.value).startswith(
            f"Keras {BACKEND} backend: model.export(format='onnx') failed for '{name}': "
        )
        assert str(error.value).endswith("load the saved model under KERAS_BACKEND=tensorflow and export it there")
        assert "\n" not in str(error.value)
