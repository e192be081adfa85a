"""What export() refuses of Keras models, and in which words. Needs Keras and its backend's packages."""

from __future__ import annotations

from typing import Any

import pytest
from export.keras_checks import BACKEND, BEYOND_KERAS, keras
from keras_networks import build

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import keras as sdk

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix


class TestRefusals:
    def check(self, layer: Any, message: str, shape: tuple[int | None, ...] = (8, 4), **options: Any) -> None:
        inputs = keras.Input(shape)
        model = keras.Model(inputs, layer(keras.layers.Dense(4)(inputs)), name="net")
        with pytest.raises(SpatialDropError) as error:
            sdk.export(model, **options)
        assert str(error.value) == message

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
            'or zeroes; export with dropout="inference" (with tf2onnx: outside exporting()), or put a '
            "SpatialDropout or Dropout layer in its place",
        )

    def test_a_rate_that_was_set_after_the_layer_was_made_without_one(self) -> None:
        late = keras.layers.SpatialDropout1D(0.0, name="late")
        late.rate = 0.25
        self.check(
            late,
            "layer 'late': its rate was 0 when it was made and is 0.25 now; Keras gave it no generator, so that it "
            "cannot train either; make it with its rate",
        )

    def test_gaussian_dropout_when_element_wise_dropout_is_asked_for(self) -> None:
        self.check(
            keras.layers.GaussianDropout(0.5, name="gauss"),
            "layer 'gauss': GaussianDropout multiplies by noise and is no case of SpatialDropout, which keeps or "
            'zeroes; export with dropout="inference" (with tf2onnx: outside exporting()), or put a '
            "SpatialDropout or Dropout layer in its place",
            elementwise=True,
        )

    def test_something_that_is_no_keras_model(self) -> None:
        with pytest.raises(
            SpatialDropError, match=r"^export takes a keras.Model of Keras 3, not a builtins.int object$"
        ):
            sdk.export(3)

    def test_a_model_whose_inputs_nobody_knows_yet(self) -> None:
        model = keras.Sequential([keras.layers.Dense(4), keras.layers.SpatialDropout1D(0.3)], name="unbuilt")
        with pytest.raises(SpatialDropError) as error:
            sdk.export(model)
        assert str(error.value) == (
            "model 'unbuilt' is not built, so that nobody knows its inputs: call it once on data, or begin it with a "
            "keras.Input"
        )

    def test_another_word_for_rng(self) -> None:
        with pytest.raises(SpatialDropError) as error:
            sdk.export(build("subclassed")[0], rng="keras_torch")
        assert str(error.value) == (
            "rng is 'keras_torch'; allowed: 'philox', 'keras_tf', 'keras_tf_xla', 'keras_jax', or None for Keras's own"
        )

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
            'dropout="inference" (with tf2onnx: outside exporting()), or take the layer out of the call',
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
