"""Every way to call torch's dropout: which layer it is, and which mask it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

import torch.nn.functional as F  # noqa: E402
from export.torch_marks import TORCH_WARNINGS  # noqa: E402
from torch import nn  # noqa: E402

import onnx_spatialdrop.export.torch as sdt  # noqa: E402
from onnx_spatialdrop.errors import SpatialDropError, VerifyError  # noqa: E402
from onnx_spatialdrop.verify import Verification, verify  # noqa: E402
from onnx_spatialdrop.verify.torch import TorchRun, draw_masks, keras_mask  # noqa: E402

pytestmark = TORCH_WARNINGS


class Net(nn.Module):
    """A module whose forward is given."""

    def __init__(self, forward: Any, **modules: nn.Module) -> None:
        super().__init__()
        self.given = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args: torch.Tensor) -> Any:
        return self.given(self, *args)


def both(module: nn.Module, *shape: int, dynamo: bool = True, steps: int = 5, **arguments: Any) -> Verification:
    """Export with mask inputs and verify."""
    torch.manual_seed(3)
    x = torch.randn(shape)
    model = sdt.export(module.train(), (x,), mask_inputs=True, dynamo=dynamo, **arguments)
    return verify(module, model, x.numpy(), steps=steps)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Dropout1d(0.4), (3, 8, 5)),
    (nn.Dropout1d(0.4), (8, 5)),
    (nn.Dropout2d(0.4), (3, 8, 5, 4)),
    (nn.Dropout2d(0.4, inplace=True), (3, 8, 5, 4)),
    (nn.Dropout3d(0.4), (2, 8, 3, 4, 2)),
    (nn.Dropout3d(0.4), (8, 3, 4, 2)),
    (nn.Dropout3d(1.0), (2, 8, 3, 4, 2)),
])  # fmt: skip
def test_layers(layer: nn.Module, shape: tuple[int, ...], dynamo: bool) -> None:
    result = both(Net(lambda self, x: self.drop(x * 2) + 1, drop=layer), *shape, dynamo=dynamo)
    assert result, str(result)
    (drop,) = result.layers
    assert drop.layer == "drop"
    assert drop.entries == 5 * (8 if shape[0] == 8 else 8 * shape[0])
    assert 0 < drop.dropped <= drop.entries


def test_calls_of_one_layer_and_functions_in_a_module() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(x) + self.inner(self.drop(x * 3))
        return F.dropout2d(F.dropout2d(y, 0.3), 0.5, training=False)

    inner = Net(lambda self, x: F.dropout2d(F.relu(x), 0.25, self.training))
    result = both(Net(forward, drop=nn.Dropout2d(0.4), inner=inner), 3, 8, 4, 4)
    assert result, str(result)
    assert [layer.layer for layer in result.layers] == [
        "drop", "drop:1", "inner", "SpatialDropout", "SpatialDropout:1",
    ]  # fmt: skip


def test_a_module_that_is_reached_in_two_ways() -> None:
    shared = nn.Dropout2d(0.4)
    result = both(Net(lambda self, x: self.one(self.two(x) + x), one=shared, two=shared), 3, 8, 4, 4)
    assert result, str(result)
    assert len(result.layers) == 2


@pytest.mark.parametrize("elementwise", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_elementwise_dropout_draws_only_where_the_model_has_it(elementwise: bool, layout: Any) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.spatial(self.plain(x.contiguous(memory_format=layout)))
        return F.dropout(y, 0.3, self.training)

    module = Net(forward, spatial=nn.Dropout2d(0.4), plain=nn.Dropout(0.5))
    result = both(module, 3, 8, 4, 4, elementwise=elementwise)
    assert result, str(result)
    names = ["plain", "spatial", "SpatialDropout"] if elementwise else ["spatial"]
    assert [layer.layer for layer in result.layers] == names


def test_other_random_numbers_between_the_layers_keep_their_places() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x)
        torch.rand(7)  # not in the graph, but in the generator's order
        return self.two(y)

    result = both(Net(forward, one=nn.Dropout2d(0.4), two=nn.Dropout2d(0.2)), 3, 8, 4, 4)
    assert result, str(result)


def test_maps_of_zeros_hide_no_mask() -> None:
    module = Net(lambda self, x: self.drop(F.relu(x) * 0) + x, drop=nn.Dropout2d(0.4))
    result = both(module, 3, 8, 4, 4)
    assert result, str(result)
    assert 20 < result.layers[0].dropped < 80


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types(dtype: Any) -> None:
    module = Net(lambda self, x: self.drop(x) * 3, drop=nn.Dropout2d(0.3))
    x = torch.randn(3, 8, 4, 4, dtype=dtype)
    result = verify(module, sdt.export(module, (x,), mask_inputs=True), x.numpy())
    assert result, str(result)


def test_masks_drawn_for_ones_own_loop_are_those_of_the_next_passes() -> None:
    module = Net(lambda self, x: self.drop(x), drop=nn.Dropout2d(0.4)).train()
    x = torch.ones(3, 8, 4, 4)
    model = sdt.export(module, (x,), mask_inputs=True)
    fed = draw_masks(module, [x], model, seed=11, steps=3)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    again = draw_masks(module, [x], model, seed=None, steps=3)
    assert torch.equal(torch.get_rng_state(), before)
    import onnx_ir as ir

    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for masks, same in zip(fed, again, strict=True):
        (got,) = session.run(None, {"args_0": x.numpy(), "training_mode": np.array(True), **masks})
        np.testing.assert_array_equal(got, module(x).numpy())
        np.testing.assert_array_equal(masks["drop.mask"], same["drop.mask"])


def test_alpha_dropout_is_refused_by_name_and_stays_off_where_it_is_left_out() -> None:
    module = Net(lambda self, x: self.alpha(x), alpha=nn.FeatureAlphaDropout(0.4))
    with pytest.raises(SpatialDropError, match=r"layer 'alpha' is feature alpha dropout, .*nn\.Dropout2d"):
        both(module, 3, 8, 4, 4)
    module = Net(lambda self, x: self.drop(self.alpha(x)), alpha=nn.AlphaDropout(0.4), drop=nn.Dropout2d(0.4))
    result = both(module, 3, 8, 4, 4, elementwise=False)
    assert result, str(result)


def test_what_does_not_match_is_refused_by_name() -> None:
    x = torch.randn(3, 8, 4, 4)
    one = Net(lambda self, x: self.drop(x), drop=nn.Dropout2d(0.4))
    model = sdt.export(one, (x,), mask_inputs=True)
    other = Net(lambda self, x: self.other(x), other=nn.Dropout2d(0.4))
    with pytest.raises(VerifyError, match="layers do not match by name: the framework has no 'drop'"):
        verify(other, model, [x])
    with pytest.raises(VerifyError, match="forward pass calls no dropout in 'drop'"):
        draw_masks(other, [x], model)
    with pytest.raises(VerifyError, match="the module is on meta; move it to the CPU"):
        TorchRun(nn.Linear(2, 2, device="meta"))


def test_keras_torch_backends_rule() -> None:
    """As FACTS of Keras 3.15 have it: the sum of seed and counter is the seed, so that neighbours share draws."""
    assert np.array_equal(keras_mask((2, 8, 1), 0.4, 11, 1), keras_mask((2, 8, 1), 0.4, 12, 0))
    assert not np.array_equal(keras_mask((2, 8, 1), 0.4, 11, 0), keras_mask((2, 8, 1), 0.4, 11, 1))
    words = np.random.RandomState(12).randint(0, 2**32, 16, dtype=np.uint64)
    kept = (words & (2**24 - 1)) < np.ceil(np.float64(np.float32(0.6)) * 2**24)
    np.testing.assert_array_equal(keras_mask((2, 8, 1), 0.4, 12, 0).reshape(-1), kept)
