"""Which dialect export() gives a layer of Keras, and when it warns or refuses. Needs Keras and its backend."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from export.keras_checks import BACKEND, keras, nodes
from keras_networks import build

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import keras as sdk
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras, TensorFlow, JAX and tf2onnx warn of is not ours to fix

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras does not run on TensorFlow here")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="Keras does not run on JAX here")
OWN = {"tensorflow": "keras_tf", "jax": "keras_jax", "torch": "philox"}[BACKEND]
INSTEAD = "its node draws by 'philox' instead, masks of the same rate but not Keras's"
WAY_OUT = "export with rng='philox', or with the default"


def rngs(model: Any, **options: Any) -> dict[str, str]:
    return {name: op.read(node).rng for name, node in nodes(sdk.export(model, **options)).items()}


def two_layers(**first: Any) -> Any:
    inputs = keras.Input((8, 4))
    x = keras.layers.SpatialDropout1D(0.3, name="one", **first)(keras.layers.Dense(4)(inputs))
    return keras.Model(inputs, keras.layers.SpatialDropout1D(0.3, name="two")(x))


def check(model: Any, why: str, expected: dict[str, str], rng: str = OWN) -> None:
    """The default warns of each layer that gets "philox"; an ``rng`` asked for by name is refused."""
    with pytest.warns(UserWarning, match=f"^layer '\\S+': {re.escape(why)}; {re.escape(INSTEAD)}$") as caught:
        found = rngs(model)
    assert found == expected
    ours = [str(each.message) for each in caught if INSTEAD in str(each.message)]
    unlike = [name for name, each in expected.items() if each == "philox"]
    assert ours == [f"layer {name!r}: {why}; {INSTEAD}" for name in unlike]
    with pytest.raises(SpatialDropError) as error:
        rngs(model, rng=rng)
    assert str(error.value) == f"layer {unlike[0]!r}: {why}; {WAY_OUT}"
    with warnings.catch_warnings(record=True) as quiet:
        warnings.simplefilter("always")
        assert set(rngs(model, rng="philox").values()) == {"philox"}
    assert not [each for each in quiet if INSTEAD in str(each.message)]


@on_tensorflow
def test_a_layer_in_double_precision_draws_by_philox() -> None:
    check(two_layers(dtype="float64"), "keras_tf draws no masks for float64", {"one": "philox", "two": "keras_tf"})


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch has no dialect")
@pytest.mark.parametrize("kind", ["GaussianNoise", "GaussianDropout"])
def test_a_generator_that_a_layer_of_another_kind_draws_from_is_known_to_nobody(kind: str) -> None:
    model = two_layers()
    inputs = keras.Input((8, 4))
    other = getattr(keras.layers, kind)(0.1, name="noise")
    other._tracker.unlock()  # Keras lets no layer change its generator once it is built
    other.seed_generator = model.get_layer("one").seed_generator
    shared = keras.Model(inputs, model(other(inputs)))
    why = "its generator draws for layers of another kind, too"
    check(shared, why, {f"{model.name}/one": "philox", f"{model.name}/two": OWN})


@contextmanager
def configured(name: str, value: bool) -> Iterator[None]:
    import jax

    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@on_jax
@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("jax_enable_x64", True, "with jax_enable_x64, JAX draws in double precision"),
        (
            "jax_threefry_partitionable",
            False,
            "without jax_threefry_partitionable, JAX numbers its draws otherwise",
        ),
    ],
)
def test_jax_configured_otherwise_draws_otherwise(option: str, value: bool, why: str) -> None:
    model = two_layers()
    with configured(option, value):
        check(model, why, {"one": "philox", "two": "philox"})
    assert rngs(model) == {"one": "keras_jax", "two": "keras_jax"}


@on_tensorflow
@pytest.mark.parametrize(("jit", "expected"), [(True, "keras_tf_xla"), (False, "keras_tf")])
def test_a_model_that_was_compiled_for_xla_draws_as_its_training_does(jit: bool, expected: str) -> None:
    model, x = build("cnn2d")
    model.compile("sgd", "mse", jit_compile=jit)
    exported = sdk.export(model)
    assert {op.read(node).rng for node in nodes(exported).values()} == {expected}
    found = verify(model, exported, x, kernel="python", steps=2)
    assert found, str(found)
    assert ("(XLA)" in found.framework) == jit


@on_tensorflow
def test_an_rng_asked_for_by_name_wins_over_how_the_model_was_compiled() -> None:
    model = two_layers()
    model.compile("sgd", "mse", jit_compile=True)
    assert set(rngs(model, rng="keras_tf").values()) == {"keras_tf"}


@pytest.mark.skipif(BACKEND != "torch", reason="Keras does not run on PyTorch here")
def test_keras_on_pytorch_draws_by_philox_and_by_a_dialect_where_it_is_asked_for() -> None:
    assert set(rngs(two_layers()).values()) == {"philox"}
    assert set(rngs(two_layers(), rng="keras_jax").values()) == {"keras_jax"}


@pytest.mark.parametrize("name", ["text_cnn", "cnn2d"])
def test_masks_that_are_inputs_are_named_after_their_layers_and_fed_what_keras_draws(name: str) -> None:
    model, x = build(name)
    exported = sdk.export(model, mask_inputs=True)
    assert not nodes(exported)
    layers = {"text_cnn": ["left", "right", "words"], "cnn2d": ["noise", "one", "two"]}[name]
    masks = [value.name for value in exported.graph.inputs if (value.name or "").endswith(".mask")]
    assert sorted(masks) == [f"{layer}.mask" for layer in layers]
    found = verify(model, exported, x)
    assert found, str(found)
    assert sorted(layer.layer for layer in found.layers) == layers
    assert sum(layer.dropped for layer in found.layers) > 0


def test_masks_cannot_be_inputs_where_there_are_none() -> None:
    with pytest.raises(SpatialDropError, match=r"^dropout is 'inference', which leaves no masks to be inputs"):
        sdk.export(build("text_cnn")[0], dropout="inference", mask_inputs=True)
