"""torch's own forward pass with the masks that an exported model draws: what its output is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from onnx_spatialdrop import reference
from onnx_spatialdrop.graph.layers import LAYER_KEY
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op

_PATCHED = ("feature_dropout", "feature_dropout_", "dropout", "dropout_")


def nodes_by_layer(model: ir.Model) -> dict[tuple[str, int], Any]:
    """Return the attributes of each SpatialDropout node, by layer and by which of the layer's calls it is."""
    seen: Counter[str] = Counter()
    found = {}
    for site in spatial_dropouts(model):
        layer = site.node.metadata_props[LAYER_KEY]
        found[layer, seen[layer]] = op.read(site.node)
        seen[layer] += 1
    return found


@contextmanager
def _calls(module: nn.Module) -> Iterator[list[str]]:
    """Keep the qualified names of the modules that are running, innermost last."""
    names = {id(each): name for name, each in module.named_modules()}
    running: list[str] = []
    hooks = [
        register_module_forward_pre_hook(lambda each, _: running.append(names[id(each)])),
        register_module_forward_hook(lambda *_: (running.pop(), None)[1], always_call=True),
    ]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def run_forced(module: nn.Module, model: ir.Model, step: int, *inputs: torch.Tensor) -> tuple[Any, int]:
    """Run ``module`` in inference mode but for dropout, whose masks are those of ``model`` at ``step``.

    torch's operators underneath every way to call dropout are replaced, and found again by the layer that is running.

    Returns:
        The module's output, and how many masks were put in.
    """
    nodes, seen = nodes_by_layer(model), Counter[str]()

    def drop(x: torch.Tensor, _p: float, _train: bool) -> torch.Tensor:
        layer = running[-1]
        if (layer, seen[layer]) not in nodes:
            return x
        node = nodes[layer, seen[layer]]
        seen[layer] += 1
        # torch runs an unbatched input as a batch of one; the node does not, and draws the same entries.
        extra = x.dim() - max(node.axes, default=x.dim() - 1) - 1
        shape = tuple(x.shape)[extra:]
        mask = torch.from_numpy(reference.dropout_mask(shape, node.axes, node.ratio, node.seed, step))
        return torch.where(
            mask.reshape((1,) * extra + tuple(mask.shape)), x * node.scale, torch.zeros((), dtype=x.dtype)
        )

    def drop_(x: torch.Tensor, p: float, train: bool) -> torch.Tensor:
        return x.copy_(drop(x, p, train))

    modes = {each: each.training for each in module.modules()}
    module.eval()
    variables: Any = torch._VF  # where torch.nn.functional looks
    originals = {name: getattr(torch, name) for name in _PATCHED}
    with _calls(module) as running, torch.no_grad():
        for name in _PATCHED:
            for home in (variables, torch):
                setattr(home, name, drop_ if name.endswith("_") else drop)
        try:
            output = module(*(each.clone() for each in inputs))
        finally:
            for name, original in originals.items():
                delattr(variables, name)
                setattr(torch, name, original)
            for each, mode in modes.items():
                each.training = mode
    return output, sum(seen.values())
