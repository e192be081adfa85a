"""Models as JAX functions: the operator's masks under jit, grad and vmap, gradients, and training that comes back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import zoo
from building import dropout_ir, dropout_model
from training.golden import CASES, FILE, SEED, SHAPE, STEP, key

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.errors import FormError, SpatialDropError, TrainerError
from onnx_spatialdrop.operator import dialects
from onnx_spatialdrop.training import update

jax = pytest.importorskip("jax", reason='needs JAX: pip install "onnx_spatialdrop[jax]"')
pytest.importorskip("jaxonnxruntime", reason='needs jaxonnxruntime: pip install "onnx_spatialdrop[jax]"')

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jaxonnxruntime's own


@pytest.fixture
def doubles() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def converted(model: ir.Model | onnx.ModelProto, **inputs: np.ndarray):
    from onnx_spatialdrop.training import jax as training

    return training.convert(model, inputs)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(("axes", "ratio"), CASES)
def test_the_gradient_is_pytorchs(axes: tuple[int, ...], ratio: float) -> None:
    with np.load(FILE) as stored:
        x, weights = stored["x"], stored["weights"]
        mask, gradient = (stored[f"{key(axes, ratio)}/{name}"] for name in ("mask", "gradient"))
    model = dropout_ir(dtype="float64", axes=axes, ratio=ratio, seed=SEED, shape=SHAPE)
    function, _ = converted(model, x=x)
    feeds = {"training_mode": True, "step": STEP}
    np.testing.assert_array_equal(function({}, {"x": x, **feeds})[1], mask)
    loss = jax.jit(lambda x: (weights * function({}, {"x": x, **feeds})[0] ** 2).sum() / 2)
    np.testing.assert_allclose(jax.grad(loss)(x), gradient, rtol=1e-6)


@pytest.mark.parametrize("rng", dialects.RNGS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masks_and_values_are_the_references_for_every_generator(rng: str, dtype: str) -> None:
    model = dropout_ir(dtype=dtype, axes=(2, 3), ratio=0.3, seed=-(2**40) - 5, rng=rng)
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(ir.DataType[dtype.upper().replace("32", "")].numpy())
    function, _ = converted(model, x=x)
    run = jax.jit(lambda *feeds: function({}, dict(zip(("x", "training_mode", "step"), feeds, strict=True))))
    for step in (0, 7, np.arange(4), np.array([3])):
        y, mask = run(x, True, step)
        expected = reference.spatial_dropout(x, (2, 3), 0.3, -(2**40) - 5, step, rng=rng)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(mask, expected[1])
    y, mask = run(x, False, -1)
    np.testing.assert_array_equal(y, x)
    assert mask.all()


def test_element_wise_dropout_and_vmap_over_steps() -> None:
    function, _ = converted(dropout_ir(axes=(), ratio=0.5, seed=3), x=np.ones((2, 3, 4, 5), np.float32))
    x = np.ones((2, 3, 4, 5), np.float32)
    masks = jax.vmap(lambda step: function({}, {"x": x, "training_mode": True, "step": step})[1])(np.arange(3))
    for step in range(3):
        np.testing.assert_array_equal(masks[step], reference.dropout_mask(x.shape, (), 0.5, 3, step))


def test_a_step_below_zero_or_too_large_is_an_error() -> None:
    x = np.ones((2, 3, 4, 5), np.float32)
    function, _ = converted(dropout_ir(), x=x)
    with pytest.raises(Exception, match="step is -1; a fresh draw needs a session that counts, so give 0 or more"):
        jax.block_until_ready(function({}, {"x": x, "training_mode": True}))
    with pytest.raises(SpatialDropError, match="'step' is 4294967296, which needs 64 bits; set jax_enable_x64"):
        function({}, {"x": x, "training_mode": True, "step": 2**32})


@pytest.mark.parametrize("name", ["digits_torch", "digits_keras", "digits_function", "digits_external"])
def test_the_digits_models_run_at_any_batch_size(name: str) -> None:
    record = zoo.record(name)
    function, weights = converted(sd.load(zoo.path(name)), image=record.images[:2])
    assert len(weights) == 8
    (logits,) = function(weights, {"image": record.images})
    np.testing.assert_allclose(logits, record.logits, atol=1e-4)
    drawn = [function(weights, {"image": record.images, "training_mode": True, "step": step})[0] for step in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(np.asarray(drawn[0]) - drawn[2]).max() > 0.1


def test_masks_in_a_network_are_those_of_a_session() -> None:
    record, model = zoo.record("digits_torch"), sd.load(zoo.path("digits_torch"))
    function, weights = converted(model, image=record.images)
    feeds = {"image": record.images, "training_mode": np.array(True), "step": np.array([5])}
    np.testing.assert_allclose(function(weights, feeds)[0], sd.session(model).run(None, feeds)[0], atol=1e-4)


def test_it_trains_and_the_weights_come_back() -> None:
    record, model = zoo.record("digits_torch"), sd.load(zoo.path("digits_torch"))
    function, weights = converted(model, image=record.images)
    turned = np.ascontiguousarray(1 - record.images[..., ::-1])

    def loss(weights: dict, step: int, training: bool):
        (logits,) = function(weights, {"image": turned, "training_mode": training, "step": step})
        return -jax.nn.log_softmax(logits)[np.arange(len(turned)), record.labels].mean()

    before = float(loss(weights, 0, False))
    slope = jax.jit(jax.grad(loss))
    for step in range(20):
        weights = jax.tree.map(lambda w, g: w - 0.02 * g, weights, slope(weights, step, True))
    after = float(loss(weights, 0, False))
    assert after < before / 2
    trained = update(sd.remove(model), weights)
    logits = sd.session(trained).run(None, {"image": turned})[0].astype(np.float64)
    exact = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(turned)), record.labels]
    assert exact.mean() == pytest.approx(after, rel=1e-4)


def test_shapes_that_the_graph_computes_and_casts_are_followed() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]> g (float[N,4,3] x) => (float[M,K] y)'
        " <float[12,2] w, bool t = {1}, int64[1] s = {2}, int64[1] minus = {-1}, int64[1] zero = {0},"
        " int64[1] one = {1}>"
        ' { d, m = onnx_spatialdrop.SpatialDropout<axes=[1], ratio=0.5, seed=3, scale=2.0, rng="philox">(x, t, s)'
        "   dims = Shape(d)  n = Slice(dims, zero, one)  shape = Concat<axis=0>(n, minus)  flat = Reshape(d, shape)"
        "   k = Cast<to=1>(m)  h = MatMul(flat, w)  r = ReduceMean<keepdims=0>(k)  y = Add(h, r) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((12, 2), np.float32), "w"))
    x = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    function, weights = converted(proto, x=x)
    assert list(weights) == ["w"]
    y, mask = reference.spatial_dropout(x, (1,), 0.5, 3, 2)
    expected = y.reshape(5, 12) @ np.ones((12, 2), np.float32) + mask.mean(dtype=np.float32)
    np.testing.assert_allclose(jax.jit(function)(weights, {"x": x})[0], expected, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    from onnx_spatialdrop.training import jax as training

    x = np.ones((2, 3, 4, 5), np.float32)
    with pytest.raises(TrainerError, match="inputs has no example of 'x'"):
        training.convert(dropout_ir(), {})
    with pytest.raises(TrainerError, match="requires_grad names 'w', which is no initializer of the model"):
        training.convert(dropout_ir(), {"x": x}, requires_grad=["w"])
    function, _ = converted(dropout_ir(), x=x)
    with pytest.raises(TrainerError, match="the function takes the weights  and the inputs 'x', 'training_mode', 's"):
        function({}, {"image": x})


def test_a_dropout_of_jaxonnxruntimes_own_drops_the_same_maps_for_ever() -> None:
    """The trap: why expand has no form for JAX."""
    from jaxonnxruntime import call_onnx, config

    config.update("jaxort_only_allow_initializers_as_static_args", False)
    model = dropout_model(training_mode=True, step=[0], shape=(4, 30, 2, 2), mask=False)
    x = np.ones((4, 30, 2, 2), np.float32)
    run, constants = call_onnx.call_onnx_model(sd.expand(model, form="dropout"), {"x": x})
    config.update("jaxort_only_allow_initializers_as_static_args", True)
    drawn = [np.asarray(jax.jit(run)(constants, {"x": x})[0]) for _ in range(3)]
    assert (drawn[0] == 0).any()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    with pytest.raises(FormError, match="target is 'jax', which draws one mask for ever in any form that it runs"):
        sd.expand(model, target="jax")
