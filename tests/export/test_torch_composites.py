"""Dropout that torch draws inside of attention and between recurrent layers, in the file and beside torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

import torch.nn.functional as F
from export.torch_checks import Calls, export, exporters, layers
from export.torch_marks import TORCH_WARNINGS
from torch import nn

import onnx_spatialdrop as sd
from onnx_spatialdrop.export.torch import composites
from onnx_spatialdrop.verify import verify

pytestmark = [
    *TORCH_WARNINGS,
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The tensor attributes? self:UserWarning"),
    pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size other than 1:UserWarning"),
]


def values(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape)


def check(module: nn.Module, x: torch.Tensor, names: list[str], dynamo: bool) -> None:
    """Export, compare with torch in inference mode, and with the masks that torch itself draws in training mode."""
    model = export(module.eval(), x, dynamo=dynamo, elementwise=True, mask_inputs=True)
    masks = [value.name for value in model.graph.inputs if str(value.name).endswith(".mask")]
    assert masks == [f"{name}.mask" for name in names]
    node = export(module, x, dynamo=dynamo, elementwise=True)
    assert sorted(name for name, _ in layers(node)) == sorted(names)
    assert [each.axes for each in sd.find(node)] == [()] * len(names)
    with torch.no_grad():
        expected = module(x.clone()).numpy()
    np.testing.assert_allclose(sd.session(node).run(None, {"x": x.numpy()})[0], expected, rtol=1e-5, atol=1e-6)
    result = verify(module, model, x.numpy(), steps=2)
    assert result, str(result)


def attend(**options: Any) -> Any:
    """Attention as libraries write it: the ratio is passed on in training mode only."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        heads = [each.unflatten(-1, (2, 4)).transpose(1, 2) for each in self.project(x).chunk(3, -1)]
        ratio = 0.25 if self.training else 0.0
        return F.scaled_dot_product_attention(*heads, dropout_p=ratio, **options).transpose(1, 2).flatten(2)

    return forward


@exporters
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.linspace(-1, 1, 25).reshape(5, 5)},
        {"attn_mask": torch.eye(5, dtype=torch.bool)},
    ],
    ids=["plain", "causal", "scaled", "added", "masked"],
)
def test_attention_that_drops_in_training_mode_only(options: dict[str, Any], dynamo: bool) -> None:
    check(Calls(attend(**options), project=nn.Linear(8, 24)), values(2, 5, 8), ["SpatialDropout"], dynamo)


def test_attention_with_grouped_heads_and_rows_that_see_nothing_is_torchs() -> None:
    query, key, value = values(2, 4, 5, 8), values(2, 2, 6, 8), values(2, 2, 6, 3)
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[1:, ::2] = True
    arguments = {"attn_mask": mask, "dropout_p": 0.3, "enable_gqa": True}
    torch.manual_seed(1)
    expected = F.scaled_dot_product_attention(query, key, value, **arguments)
    torch.manual_seed(1)
    with composites.apart():
        got = F.scaled_dot_product_attention(query, key, value, **arguments)
    assert bool((got[:, :, 0] == 0).all())
    torch.testing.assert_close(got, expected)


@exporters
@pytest.mark.parametrize("weights", [True, False])
def test_torchs_attention_layer(weights: bool, dynamo: bool) -> None:
    module = Calls(
        lambda self, x: self.attention(x, x, x, need_weights=weights)[0],
        attention=nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True),
    )
    check(module, values(2, 5, 8), ["attention"], dynamo)


@exporters
def test_a_transformer_that_torch_would_fuse_in_inference_mode(dynamo: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.2, batch_first=True)
    module = nn.TransformerEncoder(layer, 1)
    names = ["self_attn", "dropout1", "dropout", "dropout2"]
    check(module, values(2, 5, 8), [f"layers.0.{name}" for name in names], dynamo)


@exporters
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
def test_dropout_between_recurrent_layers(kind: Any, batch_first: bool, dynamo: bool) -> None:
    if kind is nn.RNN and dynamo:
        pytest.skip("torch's newer exporter has no translation of nn.RNN")
    layer = kind(6, 4, 3, dropout=0.4, batch_first=batch_first, bidirectional=True)
    check(Calls(lambda self, x: self.rnn(x)[0], rnn=layer), values(2, 5, 6), ["rnn", "rnn:1"], dynamo)


def test_packed_sequences_and_projections_draw_as_torch_does() -> None:
    layer = nn.LSTM(6, 4, 3, dropout=0.4, bidirectional=True, proj_size=2).train()
    packed = nn.utils.rnn.pack_padded_sequence(values(5, 3, 6), torch.tensor([5, 4, 2]))
    torch.manual_seed(1)
    expected, (hidden, cell) = layer(packed)
    torch.manual_seed(1)
    with composites.apart():
        got, (hidden_too, cell_too) = layer(packed)
    torch.testing.assert_close(got.data, expected.data)
    torch.testing.assert_close((hidden_too, cell_too), (hidden, cell))


@exporters
def test_what_training_mode_changes_besides_stays_out_and_is_told(dynamo: bool) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x.relu(), 0.3) * 2 if self.training else x.relu()

    module = Calls(lambda self, x: self.inner(x) + 1, inner=Calls(forward))
    message = r"element-wise dropout that shows in training mode only in 'inner' \(its module does something else then"
    with pytest.warns(UserWarning, match=message):
        model = export(module, values(2, 3), dynamo=dynamo, elementwise=True)
    assert not layers(model)


@exporters
def test_spatial_dropout_that_is_called_in_training_mode_only(dynamo: bool) -> None:
    module = Calls(lambda self, x: F.dropout2d(x.relu(), 0.3) if self.training else x.relu())
    model = export(module.eval(), values(2, 3, 4, 5), dynamo=dynamo)
    assert [each.axes for each in sd.find(model)] == [(2, 3)]
