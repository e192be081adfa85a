"""Export one module in both ways, and compare it with torch: what the tests of single layers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from export.torch_forced import run_forced
from torch import nn

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt
from onnx_spatialdrop.graph.layers import LAYER_KEY

exporters = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])


class Calls(nn.Module):
    """A module around a function, with the layers that the function uses."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def export(module: nn.Module, x: torch.Tensor, **arguments: Any) -> ir.Model:
    model = sdt.export(module, (x,), **({"input_names": ["x"], "elementwise": False} | arguments))
    assert isinstance(model, ir.Model)
    return model


def operators(model: ir.Model) -> list[str]:
    """Return the types of the nodes that do something, in order: torch 2.6 leaves Identity and Cast to the reader."""
    return [node.op_type for node in model.graph if node.op_type not in {"Cast", "Constant", "Identity"}]


def layers(model: ir.Model) -> list[tuple[str, str]]:
    return [
        (node.name or "", node.metadata_props[LAYER_KEY])
        for node in model.graph.all_nodes()
        if node.op_type == "SpatialDropout"
    ]


def check(module: nn.Module, x: torch.Tensor, count: int, tolerance: float = 1e-6, **arguments: Any) -> ir.Model:
    """Export, and compare with torch in inference and with masks forced in; return the model."""
    model = export(module.train(), x, **arguments)
    assert len(sd.find(model)) == count
    assert len({each.seed for each in sd.find(model)}) == count
    session = sd.session(model)
    feeds = {"x": as_numpy(x)}
    with torch.no_grad():
        expected = module.eval()(x.clone())
    np.testing.assert_allclose(np32(session.run(None, feeds)[0]), np32(expected), rtol=tolerance, atol=tolerance)
    for step in (0, 1):
        got = session.run(None, feeds | {"training_mode": np.array(True), "step": np.array([step])})[0]
        forced, masks = run_forced(module, model, step, x)
        assert masks == count
        np.testing.assert_allclose(np32(got), np32(forced), rtol=tolerance, atol=tolerance)
    return model


def np32(value: Any) -> np.ndarray:
    return np.asarray(value.detach().float() if isinstance(value, torch.Tensor) else value).astype(np.float32)


def as_numpy(x: torch.Tensor) -> np.ndarray:
    return x.float().numpy().astype(ml_dtypes.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()


def image(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*(shape or (2, 6, 5, 4)))
