"""The usual Monte Carlo loop in PyTorch beside one file and MCDropout, on the same network with the same weights.

``python benchmarks/montecarlo_torch.py [N[:ROUNDS] ...]``, where torch is installed. The network is "late" of
montecarlo_networks.py. Processor time, one thread, interleaved, medians; T = 31.
"""

from __future__ import annotations

import sys
from typing import Any

import montecarlo
import numpy as np
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

import onnx_spatialdrop as sd


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(given, made, 3, stride, 1), nn.Conv2d(made, made, 3, 1, 1)
        self.skip = nn.Identity() if stride == 1 and given == made else nn.Conv2d(given, made, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the block makes of ``x``."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.skip(x))


class Late(nn.Module):
    """The network "late": dropout before the last layer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3)
        self.blocks, given = nn.Sequential(), width
        for stage, made in enumerate([width, 2 * width, 4 * width, 8 * width]):
            for block in range(2):
                self.blocks.append(Block(given, made, 2 if stage and not block else 1))
                given = made
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(given, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2, 1)
        return self.head(self.drop(self.blocks(x).mean((2, 3))))


def with_weights(model: Any) -> Late:
    """Return the module with the weights of the file, which are in the order of its layers."""
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer if each.name.startswith("w")]
    network = Late()
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(weight.T if weight.shape != tuple(parameter.shape) else weight))
    return network.eval()


def loop(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the statistics as people write the loop: dropout modules in training mode, T forward passes."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    with torch.no_grad():
        p = torch.stack([torch.softmax(network(x), 1) for _ in range(montecarlo.SAMPLES)])
    mean = p.mean(0)
    entropy = -(mean * mean.clamp_min(1e-30).log()).sum(1)
    expected = -(p * p.clamp_min(1e-30).log()).sum(2).mean(0)
    return {"mean": mean, "variance": p.var(0), "entropy": entropy, "mutual_information": entropy - expected}


def main(rows: int, rounds: int) -> None:
    torch.set_num_threads(1)
    model, feeds = montecarlo.load("late", rows)
    network, x = with_weights(model), torch.from_numpy(feeds["x"])
    with torch.no_grad():
        expected = sd.session(model).run(None, feeds)[0]
        assert np.abs(network(x).numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    file = sd.session(sd.monte_carlo(model), sess_options=montecarlo.options())
    mc = sd.MCDropout(model, sess_options=montecarlo.options())
    runs = {
        "PyTorch": lambda: loop(network, x),
        "one file": lambda: file.run(montecarlo.NAMES, feeds),
        "MCDropout": lambda: mc.predict(feeds),
    }
    for run in runs.values():
        run()
    took = montecarlo.medians(runs, rounds)
    row = "  ".join(f"{each} {took['PyTorch'] / took[each]:.1f} x" for each in ("one file", "MCDropout"))
    print(f"late  N {rows:2}  PyTorch {torch.__version__}: {1e3 * took['PyTorch']:.1f} ms  {row}", flush=True)


if __name__ == "__main__":
    for argument in sys.argv[1:] or ("1:5", "8:5"):
        number, *more = argument.split(":")
        main(int(number), int(more[0]) if more else 5)
