"""Keras on PyTorch: what is refused there, and what both of torch's exporters make of it. Needs Keras on torch.

KERAS_BACKEND=torch python -m pytest tests/export, in an environment with ".[torch,test]" and keras==3.15.*
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from export.keras_checks import BACKEND, close, keras, nodes, run, seeds_by_layer
from keras_networks import build, forced

from onnx_spatialdrop.errors import SpatialDropError, VerifyError
from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.verify import verify

if BACKEND != "torch":
    pytest.skip("Keras does not run on PyTorch here: set KERAS_BACKEND=torch", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras and torch warn of is not ours to fix
layers = keras.layers
WAY_OUT = "export with rng='philox', or with the default"


def one_layer(layer: Any, size: int | None = 8, **options: Any) -> Any:
    inputs = keras.Input((size, 4), **options)
    return keras.Model(inputs, layer(layers.Dense(4, **options)(inputs)), name="net")


class TestAnRngThatIsAskedForByName:
    def refused(self, model: Any, rng: str, why: str) -> None:
        with pytest.raises(SpatialDropError) as error:
            sdk.export(model, rng=rng)
        assert str(error.value) == f"layer 'drop': {why}; {WAY_OUT}"
        with warnings.catch_warnings(record=True) as quiet:
            warnings.simplefilter("always")
            assert op.read(nodes(sdk.export(model))["drop"]).rng == "philox"
        assert not [each for each in quiet if "philox" in str(each.message)]  # the default promises no more

    @pytest.mark.parametrize("rng", ["keras_tf", "keras_tf_xla"])
    def test_it_has_no_masks_for_doubles(self, rng: str) -> None:
        drop = layers.SpatialDropout1D(0.3, name="drop", dtype="float64")
        self.refused(one_layer(drop, dtype="float64"), rng, f"{rng} draws no masks for float64")

    def test_a_generator_that_a_layer_of_another_kind_draws_from(self) -> None:
        drop, noise = layers.SpatialDropout1D(0.3, name="drop"), layers.GaussianNoise(0.1)
        inputs = keras.Input((8, 4))
        model = keras.Model(inputs, drop(noise(inputs)))
        noise._tracker.unlock()  # Keras lets no layer change its generator once it is built
        noise.seed_generator = drop.seed_generator
        self.refused(model, "keras_tf", "its generator draws for layers of another kind, too")

    @pytest.mark.parametrize("rng", ["keras_tf", "keras_jax", "philox"])
    def test_the_node_draws_so_and_verify_tells_it_from_keras(self, rng: str) -> None:
        model, x = build("text_cnn")
        exported = sdk.export(model, rng=rng)
        assert {op.read(node).rng for node in nodes(exported).values()} == {rng}
        found = verify(model, exported, x, kernel="python")
        assert found.first is not None
        assert (found.first.step, found.first.layer, found.first.what) == (0, "words", "mask")

    def test_xla_has_no_twin_to_verify_against(self) -> None:
        model, x = build("text_cnn")
        exported = sdk.export(model, rng="keras_tf_xla")
        message = r"^the model's nodes draw by keras_tf_xla, which only Keras on TensorFlow can run$"
        with pytest.raises(VerifyError, match=message):
            verify(model, exported, x, kernel="python")


class TestNoiseShapes:
    def test_one_that_does_not_fit_is_refused_by_the_newer_exporter_too(self) -> None:
        model = one_layer(layers.Dropout(0.5, noise_shape=(2, 1, 3), name="odd"))
        with pytest.raises(SpatialDropError) as error:
            sdk.export(model, input_signature=[keras.InputSpec(shape=(2, 8, 4), dtype="float32")])
        assert str(error.value).startswith("layer 'odd': noise_shape (2, 1, 3) does not fit its input of shape (")

    def test_where_sizes_are_open_what_torch_traces_says_nothing(self) -> None:
        model = one_layer(layers.Dropout(0.5, noise_shape=(None, 6, 1), name="drop"), size=None)
        exported = sdk.export(model)
        assert op.read(nodes(exported)["drop"]).axes == (2,)
        x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
        with forced(seeds_by_layer(exported), 3):
            expected = keras.ops.convert_to_numpy(model(x))
        close(run(exported, x, training_mode=True, step=np.array([3])), expected)


@pytest.mark.parametrize("batch", [None, 3])
def test_both_of_torch_s_exporters_write_the_nodes(batch: int | None) -> None:
    model, x = build("cnn2d")
    exported = sdk.export(model, input_signature=[keras.InputSpec(shape=(batch, 16, 16, 3), dtype="float32")])
    written_by_dynamo = any("pkg.torch" in key for node in exported.graph for key in node.metadata_props)
    assert written_by_dynamo == (batch is not None)
    assert sorted(nodes(exported)) == ["noise", "one", "two"]
    with forced(seeds_by_layer(exported), 2):
        expected = keras.ops.convert_to_numpy(model(x, training=False))
    close(run(exported, x, training_mode=True, step=np.array([2])), expected)
