"""SpatialDropout nodes in onnx2torch are PyTorch's feature dropout; weights come back by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import zoo
from building import dropout_ir, dropout_model

torch = pytest.importorskip("torch", reason="needs onnx_spatialdrop[onnx2torch]")
onnx2torch = pytest.importorskip("onnx2torch", reason="needs onnx_spatialdrop[onnx2torch]")

import onnx_ir as ir

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import TrainerError
from onnx_spatialdrop.passes.opset import OpsetPass
from onnx_spatialdrop.training import pytorch, trainable, update

pytestmark = pytest.mark.filterwarnings("ignore")  # onnx2torch's own


@pytest.mark.parametrize(("dims", "layer"), [(1, torch.nn.Dropout1d), (2, torch.nn.Dropout2d), (3, torch.nn.Dropout3d)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_it_is_pytorchs_feature_dropout_mask_for_mask(dims: int, layer: type, dtype: torch.dtype) -> None:
    x = torch.ones(6, 50, *range(2, 2 + dims), dtype=dtype)
    ours = pytorch.SpatialDropout(range(2, 2 + dims), 0.3)
    torch.manual_seed(3)
    expected = layer(0.3)(x)
    torch.manual_seed(3)
    y, mask = ours(x)
    assert mask.shape == (6, 50, *[1] * dims)
    torch.testing.assert_close(y, expected)
    assert torch.equal(mask.expand_as(x), expected != 0)


@pytest.mark.parametrize("axes", [(1, 2), (1,), (0, 3), (-1,), (), (0, 1, 2, 3)])
def test_any_axes_share_their_mask(axes: tuple[int, ...]) -> None:
    x = torch.rand(8, 9, 10, 11) + 1
    torch.manual_seed(0)
    y, mask = pytorch.SpatialDropout(axes, 0.25)(x)
    shared = [axis % 4 for axis in axes]
    assert list(mask.shape) == [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    torch.testing.assert_close(y, torch.where(mask, x / 0.75, 0.0))
    if mask.numel() > 700:
        assert abs(mask.double().mean().item() - 0.75) < 0.09  # 5 standard deviations at 700


def test_scale_ratio_one_and_what_is_dropped() -> None:
    x = torch.tensor([[1.0, float("nan"), float("inf"), -2.0]], requires_grad=True)
    torch.manual_seed(0)
    y, mask = pytorch.SpatialDropout((), 0.5, scale=1.0)(x)
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    assert torch.equal(y[mask].nan_to_num(), x[mask].nan_to_num())
    y, mask = pytorch.SpatialDropout((), 1.0)(torch.full((2, 3), 5.0, requires_grad=True))
    assert not mask.any()
    assert not y.any()
    y, mask = pytorch.SpatialDropout((1,), 0.0)(torch.arange(6.0).reshape(2, 3))
    assert mask.all()
    assert torch.equal(y, torch.arange(6.0).reshape(2, 3))


def test_gradients_are_those_of_feature_dropout() -> None:
    x, weights = torch.rand(4, 20, 3, 3, requires_grad=True), torch.rand(4, 20, 3, 3)
    torch.manual_seed(1)
    (pytorch.SpatialDropout((2, 3), 0.4)(x)[0].square() * weights).sum().backward()
    ours, x.grad = x.grad, None
    torch.manual_seed(1)
    (torch.nn.functional.dropout2d(x, 0.4).square() * weights).sum().backward()
    torch.testing.assert_close(ours, x.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "name", ["digits_torch", "digits_keras", "digits_keras_1d", "digits_function", "digits_external"]
)
def test_real_models_train_and_their_weights_come_back(name: str) -> None:
    record = zoo.record(name)
    module = pytorch.convert(zoo.path(name))
    x, labels = torch.from_numpy(record.images), torch.from_numpy(record.labels)
    module.eval()
    np.testing.assert_allclose(module(x).detach().numpy(), record.logits, atol=1e-4)
    stored = io.load(zoo.path(name)).graph.initializers
    for key, array in pytorch.weights(module, zoo.path(name)).items():
        np.testing.assert_array_equal(array, stored[key].const_value.numpy())
    module.train()
    assert not torch.equal(module(x), module(x))
    optimizer = torch.optim.SGD(module.parameters(), 1e-2)
    torch.nn.functional.cross_entropy(module(x), labels).backward()
    assert all(each.grad is not None and each.grad.any() for each in module.parameters())
    optimizer.step()
    module.eval()
    trained = pytorch.weights(module, zoo.path(name))
    assert set(trainable(io.load(zoo.path(name)))) <= trained.keys()
    updated = update(sd.remove(zoo.path(name)), trained)
    (logits,) = zoo.session(updated).run(None, {"image": record.images})
    np.testing.assert_allclose(logits, module(x).detach().numpy(), atol=1e-3)
    assert np.abs(logits - record.logits).max() > 1e-3


def test_only_what_is_asked_for_is_trained() -> None:
    module = pytorch.convert(zoo.path("digits_torch"), requires_grad=["15.bias"])
    assert [name for name, each in module.named_parameters() if each.requires_grad] == ["node_linear.bias"]
    with pytest.raises(TrainerError, match="requires_grad names 'b', which is no initializer of the model"):
        pytorch.convert(zoo.path("digits_torch"), requires_grad=["b"])


def test_onnx2torch_by_itself_keeps_a_dense_layers_weights_as_buffers() -> None:
    """The trap: an optimizer never sees them."""
    model = io.load(zoo.path("digits_keras"))
    OpsetPass(17).call(model)
    pytorch.register()
    module = onnx2torch.convert(ir.to_proto(model))
    assert not any(each.shape == (48, 10) for each in module.parameters())
    assert any(each.shape == (48, 10) for each in pytorch.convert(zoo.path("digits_keras")).parameters())


@pytest.mark.parametrize("with_body", [False, True])
def test_onnx2torchs_own_convert_knows_the_node_with_and_without_its_body(with_body: bool) -> None:
    pytorch.register()
    pytorch.register()  # a second time changes nothing
    model = dropout_model(opset=18, wrap=True, mask=False)
    module = onnx2torch.convert(sd.attach(model) if with_body else model)
    x = torch.rand(2, 40, 3, 3)
    torch.testing.assert_close(module.eval()(x), -x)
    dropped = module.train()(x)
    torch.testing.assert_close(dropped, torch.where(dropped != 0, -x / 0.7, 0.0))
    assert 0 < (dropped[:, :, 0, 0] == 0).sum() < 80


def test_an_output_of_the_node_that_is_the_graphs_is_itself_and_no_pair() -> None:
    x = torch.rand(2, 40, 3, 3)
    y = pytorch.convert(dropout_ir(mask=False)).train()(x)
    assert y.shape == x.shape
    y, mask = pytorch.convert(dropout_ir(mask=True)).train()(x)
    assert torch.equal(mask.expand_as(x), y != 0)


def test_a_training_mode_that_is_fed_has_to_be_true_as_well() -> None:
    model = dropout_ir(mask=False, wrap=True)
    del model.graph.initializers["training_mode"]
    module = pytorch.convert(model).train()
    x = torch.rand(2, 40, 3, 3)
    assert torch.equal(module(x, torch.tensor([False])), -x)
    assert not torch.equal(module(x, torch.tensor([True])), -x)
    assert torch.equal(module.eval()(x, torch.tensor([True])), -x)


def test_a_weight_in_two_places_that_were_trained_apart_is_refused() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y)'
        " <float[2,2] w = {1.0, 2.0, 3.0, 4.0}, float[2] b = {0.0, 0.0}>"
        " { h = Gemm<transB=1>(x, w, b)  y = Gemm<transB=1>(h, w, b) }"
    )
    module = pytorch.convert(proto)
    assert pytorch.weights(module, proto).keys() == {"w", "b"}
    with torch.no_grad():
        next(each for each in module.parameters() if each.dim() == 2).add_(1)
    with pytest.raises(TrainerError, match="weight 'w' is used in several places, and onnx2torch trained copies of it"):
        pytorch.weights(module, proto)


def test_importing_the_training_package_loads_no_trainer() -> None:
    probe = "import onnx_spatialdrop.training, sys; print('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
