"""Small networks as people build them, with random weights and batch statistics from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    """ENet's regular, dilated or asymmetric bottleneck."""

    def __init__(self, width: int, inner: int, dilation: int = 1, asymmetric: bool = False, p: float = 0.1) -> None:
        super().__init__()
        middle: list[nn.Module]
        if asymmetric:
            middle = [nn.Conv2d(inner, inner, (5, 1), padding=(2, 0)), nn.Conv2d(inner, inner, (1, 5), padding=(0, 2))]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)]
        self.branch = nn.Sequential(
            *(nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.PReLU()),
            *(*middle, nn.BatchNorm2d(inner), nn.PReLU()),
            *(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width), nn.Dropout2d(p)),
        )
        self.out = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x + self.branch(x))


class ENet(nn.Module):
    """ENet-like segmentation: two widths, Dropout2d at the end of every residual branch."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.initial = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.ModuleList([Bottleneck(8, 4, p=0.01) for _ in range(2)])
        self.down = nn.Sequential(nn.Conv2d(8, 16, 2, stride=2, bias=False), nn.BatchNorm2d(16), nn.PReLU())
        self.second = nn.Sequential(
            Bottleneck(16, 4), Bottleneck(16, 4, dilation=2), Bottleneck(16, 4, asymmetric=True)
        )
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = Bottleneck(8, 4)
        self.head = nn.ConvTranspose2d(8, classes, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(torch.cat([self.initial(x), F.max_pool2d(x, 2)], 1)))
        for block in self.first:
            x = block(x)
        y = self.up(self.second(self.down(x)))
        return self.head(self.last(y + x))


class NonBottleneck1d(nn.Module):
    """ERFNet's block of factorised convolutions, with dropout before the residual sum."""

    def __init__(self, width: int, p: float, dilation: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.b = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self.c = nn.Conv2d(width, width, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.d = nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3)
        self.dropout = nn.Dropout2d(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        y = self.bn1(y).relu()
        y = self.bn2(self.d(F.relu(self.c(y))))
        if self.dropout.p != 0:
            y = self.dropout(y)
        return F.relu(y + x)


class Downsampler(nn.Module):
    """ERFNet's: a strided convolution beside a pooling."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out - n_in, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(torch.cat([self.conv(x), F.max_pool2d(x, 2)], 1)))


class ERFNet(nn.Module):
    """ERFNet-like segmentation: rates .03 and .3 in the encoder and none in the decoder."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            Downsampler(3, 8),
            *(NonBottleneck1d(8, 0.03, 1) for _ in range(2)),
            Downsampler(8, 16),
            *(NonBottleneck1d(16, 0.3, dilation) for dilation in (2, 4)),
        )
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(8, eps=1e-3)
        self.decoder = NonBottleneck1d(8, 0.0, 1)
        self.head = nn.ConvTranspose2d(8, classes, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(F.relu(self.bn(self.up(self.encoder(x))))))


class TemporalBlock(nn.Module):
    """Two causal dilated convolutions, each with Dropout1d, and a residual."""

    def __init__(self, n_in: int, n_out: int, dilation: int, p: float) -> None:
        super().__init__()
        weight_norm = nn.utils.parametrizations.weight_norm
        self.pad = 2 * dilation
        self.conv1 = weight_norm(nn.Conv1d(n_in, n_out, 3, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(n_out, n_out, 3, dilation=dilation))
        self.drop1 = nn.Dropout1d(p)
        self.drop2 = nn.Dropout1d(p, inplace=True)
        self.side = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop1(F.relu(self.conv1(F.pad(x, (self.pad, 0)))))
        y = self.drop2(F.relu(self.conv2(F.pad(y, (self.pad, 0)))))
        return F.relu(y + self.side(x))


class TCN(nn.Module):
    """A temporal convolutional network that classifies every time step."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 8, 8, 8)
        blocks = [TemporalBlock(a, b, 2**i, 0.2) for i, (a, b) in enumerate(pairwise(widths))]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv1d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))


class DoubleConv(nn.Module):
    """A 3-D U-Net's block: convolution, norm, activation, twice, with functional dropout in between."""

    def __init__(self, n_in: int, n_out: int, p: float) -> None:
        super().__init__()
        self.p = p
        self.one = nn.Sequential(nn.Conv3d(n_in, n_out, 3, padding=1), nn.BatchNorm3d(n_out), nn.LeakyReLU(0.1))
        self.two = nn.Sequential(nn.Conv3d(n_out, n_out, 3, padding=1), nn.BatchNorm3d(n_out), nn.LeakyReLU(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.dropout3d(self.one(x), self.p, self.training))


class UNet3d(nn.Module):
    """A 3-D U-Net with a skip connection, Dropout3d in the blocks and before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.left = DoubleConv(1, 4, 0.15)
        self.bottom = DoubleConv(4, 8, 0.25)
        self.up = nn.ConvTranspose3d(8, 4, 2, stride=2)
        self.right = DoubleConv(8, 4, 0.15)
        self.drop = nn.Dropout3d(0.5)
        self.head = nn.Conv3d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.left(x)
        y = self.up(self.bottom(F.max_pool3d(skip, 2)))
        return self.head(self.drop(self.right(torch.cat([skip, y], 1))))


@dataclass(frozen=True)
class Network:
    """A network, an input shape for it, and how many SpatialDropout nodes with which axes it must have."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    nodes: int
    axes: tuple[int, ...]

    def module(self) -> nn.Module:
        """Return the network in training mode, as a training script leaves it, with settled batch statistics."""
        torch.manual_seed(0)
        module = self.build()
        with torch.no_grad():
            for each in module.modules():
                if isinstance(each, nn.modules.batchnorm._BatchNorm):
                    each.running_mean.uniform_(-0.2, 0.2)
                    each.running_var.uniform_(0.5, 1.5)
                    each.weight.uniform_(0.7, 1.3)
                    each.bias.uniform_(-0.2, 0.2)
        return module.train()

    def input(self, batch: int | None = None) -> torch.Tensor:
        """Return an input, with another batch size where one is given."""
        torch.manual_seed(1)
        return torch.randn(self.shape if batch is None else (batch, *self.shape[1:]))


NETWORKS = [
    Network("ENet", ENet, (2, 3, 16, 24), 6, (2, 3)),
    Network("ERFNet", ERFNet, (2, 3, 16, 24), 4, (2, 3)),
    Network("TCN", TCN, (2, 4, 20), 6, (2,)),
    Network("3-D U-Net", UNet3d, (2, 1, 8, 8, 8), 4, (2, 3, 4)),
]
