"""What export() makes of Keras's layers: which become nodes, and with which seeds. Needs Keras and its backend."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from export.keras_checks import BACKEND, close, keras, nodes, run, seeds_by_layer
from keras_networks import build, forced

from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.seeds import derive_seeds
from onnx_spatialdrop.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix


class TestSeeds:
    def test_a_layers_own_seed_becomes_the_nodes_and_others_are_derived(self) -> None:
        found = nodes(sdk.export(build("cnn2d")[0], seed=5, rng="philox"))
        assert op.read(found["two"]).seed == 7
        derived = [op.read(found[name]).seed for name in ("one", "noise")]
        assert derived == derive_seeds(5, 2, frozenset({7}))

    def test_a_second_call_and_a_second_layer_with_that_seed_get_seeds_derived_from_it(self) -> None:
        found = nodes(sdk.export(build("subclassed")[0], rng="philox"))
        assert op.read(found["shared"]).seed == 5
        assert op.read(found["shared:1"]).seed == derive_seeds(5, 1, frozenset({5}))[0]

    def test_rate_seed_and_generator_state_are_on_the_node(self) -> None:
        model, _ = build("cnn2d")
        for name, node in nodes(sdk.export(model, rng="philox")).items():
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
        whole = sdk.export(model, elementwise=True, rng="philox")
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
        exported = sdk.export(model, rng="philox")
        for node in nodes(exported).values():
            assert op.numpy_dtype(node.inputs[0]) == dtype
            assert op.read(node).scale == float(np.asarray(1 / 0.7).astype(dtype))
        onnx.checker.check_model(ir.to_proto(exported), full_check=True)  # tf2onnx alone writes float16 here and there
        if dtype == np.float16:  # ONNX Runtime's MatMul has no bfloat16 on CPU
            x = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
            with forced(seeds_by_layer(exported), 3):
                expected = keras.ops.convert_to_numpy(model(x))
            got = run(exported, x, training_mode=True, step=np.array([3]))
            assert got.dtype == np.float16
            np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=4e-3, atol=4e-3)


class Rows(keras.layers.SpatialDropout2D):  # type: ignore[misc]
    """Says for itself that it drops rows of maps."""

    def _get_noise_shape(self, inputs: Any) -> Any:
        size = keras.ops.shape(inputs)
        return size[0], size[1], 1, size[3]


class Always(keras.layers.SpatialDropout2D):  # type: ignore[misc]
    """Drops in inference mode, too, as people write Monte Carlo dropout."""

    def call(self, inputs: Any, training: bool = False) -> Any:  # noqa: ARG002, the signature is Keras's
        return super().call(inputs, training=True)


class TestDerivedClasses:
    @pytest.mark.parametrize(("kind", "axes"), [(Rows, [(2,), (3,)]), (Always, [(1, 2), (2, 3)])])
    def test_its_masks_are_those_that_it_draws(self, kind: Any, axes: list[tuple[int, ...]]) -> None:
        inputs = keras.Input((6, 5, 3))
        model = keras.Model(inputs, kind(0.4, name="drop")(keras.layers.Conv2D(4, 1, name="conv")(inputs)))
        x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
        exported = sdk.export(model)
        assert op.read(nodes(exported)["drop"]).axes in axes  # tf2onnx moves transposes
        if BACKEND != "torch":  # has no dialect
            found = verify(model, exported, x, kernel="python")
            assert found, str(found)
            assert found.layers[0].dropped > 0
        got = run(exported, x, training_mode=True, step=np.array([0]))
        assert not np.array_equal(got, run(exported, x))


class TestTraining:
    @pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime-training", "onnx2torch"])
    def test_it_expands_to_standard_ops_that_always_drop(self, target: str) -> None:
        model, x = build("text_cnn")
        trained = sdk.export(model, dropout="training", target=target, rng="philox")
        assert {node.domain for node in trained.graph.all_nodes()} == {""}
        assert "training_mode" not in [value.name for value in trained.graph.inputs]
        assert trained.opset_imports[""] == 18
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        trainers = any(node.op_type == "Dropout" for node in trained.graph.all_nodes())
        # ONNX Runtime's own optimiser would delete the Dropout that a trainer reads, and nothing of the other forms.
        disabled = ["EliminateDropout"] if trainers else []
        session = onnxruntime.InferenceSession(
            ir.to_proto(trained).SerializeToString(), options, disabled_optimizers=disabled
        )
        drawn = [session.run(None, {session.get_inputs()[0].name: x})[0] for _ in range(4)]
        assert len({each.tobytes() for each in drawn}) == 4
        inference = keras.ops.convert_to_numpy(model(x, training=False))
        assert min(np.abs(each - inference).max() for each in drawn) > 0.01

    def test_its_masks_are_those_of_the_nodes(self) -> None:
        model, x = build("text_cnn")
        trained = sdk.export(model, dropout="training", target="onnxruntime", rng="philox")
        with forced(seeds_by_layer(sdk.export(model, rng="philox")), 3):
            expected = model(x, training=False)
        close(run(trained, x, step=np.array([3])), expected)

    def test_without_a_target_it_is_for_onnxruntime_training(self) -> None:
        trained = sdk.export(build("text_cnn")[0], dropout="training")
        kinds = [node.op_type for node in trained.graph if node.op_type in ("Dropout", "RandomUniformLike")]
        assert kinds == ["Dropout"] * 3
        assert [value.name for value in trained.graph.inputs] == ["tokens"]
