"""What Keras models hold besides dropout that a file can hold, and what an export says of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from export.keras_checks import BACKEND, close, keras, nodes, run

from onnx_spatialdrop.errors import SpatialDropError, SpecError
from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.export.left_out import LeftOut, LeftOutWarning
from onnx_spatialdrop.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix
layers = keras.layers
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf2onnx's way with what it cannot convert")


def sequence(*parts: Any, shape: tuple[int, ...] = (4, 6)) -> Any:
    return keras.Sequential([keras.Input(shape), *parts], name="net")


class Drops(layers.Layer):
    def __init__(self, fraction: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.fraction, self.generator = fraction, keras.random.SeedGenerator(1)

    def call(self, x: Any, training: bool = False) -> Any:
        return keras.random.dropout(x, self.fraction, seed=self.generator) if training and self.fraction else x


class Weighs(Drops):
    def call(self, x: Any, training: bool = False) -> Any:
        weights = keras.ops.softmax(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))))
        return keras.ops.matmul(super().call(weights, training), x)


class TestLayersThatAreRandomByDefault:
    @ON_TENSORFLOW
    @pytest.mark.parametrize("dropout", ["op", "inference"])
    @pytest.mark.parametrize(
        "layer",
        [
            lambda: layers.RandomFlip(),
            lambda: layers.RandomBrightness(0.1, value_range=(0, 1)),
            lambda: layers.RandomContrast(0.1),
            lambda: layers.RandomZoom(0.1),
            lambda: layers.RandomRotation(0.1),
            lambda: layers.RandomTranslation(0.1, 0.1),
            lambda: layers.RandomCrop(3, 3),
        ],
        ids=["flip", "brightness", "contrast", "zoom", "rotation", "translation", "crop"],
    )
    def test_they_are_exported_in_inference_mode(self, layer: Any, dropout: Any) -> None:
        model = sequence(layer(), layers.SpatialDropout2D(0.3, name="drop"), shape=(4, 4, 3))
        x = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
        exported = sdk.export(model, dropout=dropout)
        close(run(exported, x), model(x, training=False))
        assert list(nodes(exported)) == (["drop"] if dropout == "op" else [])

    @ON_TENSORFLOW
    def test_one_that_is_called_to_be_random_is_refused_by_name(self) -> None:
        class Augmented(keras.Model):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(name="net")
                self.flip, self.drop = layers.RandomFlip(name="flip"), layers.SpatialDropout2D(0.3)

            def call(self, x: Any) -> Any:
                return self.drop(self.flip(x, training=True))

        model = Augmented()
        model(np.zeros((2, 4, 4, 3), np.float32))
        with pytest.raises(SpatialDropError, match=r"^layer 'flip' \(RandomFlip\): the exporter left StatelessRandom"):
            sdk.export(model)


@ON_TENSORFLOW
@pytest.mark.parametrize(
    ("layer", "dtype", "size"),
    [
        (lambda: layers.TextVectorization(20, output_sequence_length=5, vocabulary=["a"], name="look"), "string", 1),
        (lambda: layers.StringLookup(vocabulary=["a", "b"], name="look"), "string", 4),
        (lambda: layers.IntegerLookup(vocabulary=[5, 6], name="look"), "int64", 4),
    ],
    ids=["text", "string", "integer"],
)
@pytest.mark.parametrize("dropout", ["op", "inference"])
def test_lookups_are_refused_by_name(layer: Any, dtype: str, size: int, dropout: Any) -> None:
    inputs = keras.Input((size,), dtype=dtype)
    embedded = layers.Embedding(20, 4)(layer()(inputs))
    with pytest.raises(SpatialDropError) as error:
        sdk.export(keras.Model(inputs, layers.SpatialDropout1D(0.3)(embedded)), dropout=dropout)
    assert str(error.value).startswith("layer 'look' (")
    assert str(error.value).endswith(
        "LookupTableFindV2, which ONNX does not have, so that no runtime loads the file; take what needs it out of the "
        "model and do it before, in Python"
    )


class TestWhatIsLeftOut:
    def told(self, model: Any, **options: Any) -> tuple[LeftOut, ...]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            sdk.export(model, **options)
        found = [each.message for each in seen if isinstance(each.message, LeftOutWarning)]
        return found[0].left_out if found else ()

    def test_every_kind_is_named(self) -> None:
        model = sequence(
            layers.Dropout(0.1, name="plain"),
            layers.LSTM(5, dropout=0.2, return_sequences=True, name="lstm"),
            layers.GRU(5, return_sequences=True, name="still"),
            layers.GaussianNoise(0.3, name="noise"),
            layers.SpatialDropout1D(0.4, name="kept"),
        )
        assert [(each.layer, each.what, each.ratio) for each in self.told(model)] == [
            ("plain", "element-wise dropout", 0.1),
            ("lstm", "dropout inside of LSTM", 0.2),
            ("noise", "GaussianNoise", 0.3),
        ]
        assert not self.told(model, elementwise=False)
        assert not self.told(model, dropout="inference")

    def test_so_are_layers_that_call_keras_dropout_themselves(self) -> None:
        model = sequence(
            Drops(0.25, name="own"),
            keras.Sequential([Weighs(0.3, name="weighs"), layers.Dense(6)], name="inner"),
            Drops(0.0, name="still"),
            layers.SpatialDropout1D(0.4, name="kept"),
        )
        assert [(each.layer, each.what, each.ratio) for each in self.told(model)] == [
            ("own", "dropout inside of Drops", 0.25),
            ("inner/weighs", "dropout inside of Weighs", 0.3),
        ]

    def test_dropout_inside_of_attention_is_a_layer_like_any_other(self) -> None:
        inputs = keras.Input((4, 6))
        attention = layers.MultiHeadAttention(2, 3, dropout=0.25, name="attention")
        model = keras.Model(inputs, layers.SpatialDropout1D(0.3, name="drop")(attention(inputs, inputs)))
        (left,) = self.told(model)
        assert (left.layer, left.ratio) == ("attention/dropout", 0.25)
        exported = sdk.export(model, elementwise=True)
        assert sorted(nodes(exported)) == ["attention/dropout", "drop"]
        if BACKEND == "tensorflow":
            x = np.random.default_rng(0).random((2, 4, 6), np.float32)
            result = verify(model, exported, x, kernel="python")
            assert result, str(result)


@pytest.mark.parametrize(
    "names", [("größe", "d d"), ("a:1", "a"), ("ドロップ", "'q'\"\\"), ("%s{}", "_<k>"), ("a\tb", "-")]
)
def test_layers_may_have_names_of_any_characters(names: tuple[str, str]) -> None:
    first, second = names
    model = sequence(
        layers.SpatialDropout1D(0.3, name=first), layers.Dense(6), layers.SpatialDropout1D(0.4, name=second)
    )
    assert list(nodes(sdk.export(model))) == [first, second]
    exported = sdk.export(model, mask_inputs=True)
    masks = [str(value.name) for value in exported.graph.inputs if str(value.name).endswith(".mask")]
    assert masks == [f"{first}.mask", f"{second}.mask"]
    if BACKEND == "tensorflow":
        result = verify(model, sdk.export(model), np.ones((2, 4, 6), np.float32), steps=2, kernel="python")
        assert result, str(result)


class TestWholeNumbersOfAnyType:
    model = sequence(layers.Dense(6), layers.SpatialDropout1D(0.3, name="drop"))

    @pytest.mark.parametrize("version", [18, 18.0, np.int32(18), np.float64(18), np.array(18)])
    def test_an_opset(self, version: Any) -> None:
        assert sdk.export(self.model, opset_version=version).graph.opset_imports[""] == 18 or BACKEND == "jax"

    @pytest.mark.parametrize(
        ("version", "error"), [(18.5, SpecError), ("18", TypeError), (True, TypeError), (0, SpecError)]
    )
    def test_what_is_none_is_refused_by_name(self, version: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"^opset_version "):
            sdk.export(self.model, opset_version=version)

    def test_a_seed_and_a_number_of_steps(self) -> None:
        with pytest.raises(SpecError, match=r"^seed is 7\.5; it must be a whole number$"):
            sdk.export(self.model, seed=7.5)
        if BACKEND == "tensorflow":
            exported = sdk.export(self.model, seed=np.float64(7))
            assert verify(self.model, exported, np.ones((2, 4, 6), np.float32), steps=2.0, first_step=np.int8(1))
