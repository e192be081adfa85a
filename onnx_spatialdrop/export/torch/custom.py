"""Tell what a dropout layer of a library's own drops, by running it: stochastic depth, DropPath, and their like.

Such a layer has no operator of its own: it is the identity in inference mode, and multiplies by random numbers in
training mode. Imports torch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["Custom", "is_leaf", "read"]

_SIZES: Final = (6, 5, 4, 3, 2)
_DRAWS: Final = 64


@dataclass(frozen=True)
class Custom:
    """What a layer of one tensor of a known rank does in training mode.

    Attributes:
        ratio: fraction dropped, in (0, 1).
        axes: axes along which one mask entry is shared; () is element-wise.
        scaled: whether kept values are multiplied by 1 / (1 - ratio), rather than left as they are.
    """

    ratio: float
    axes: tuple[int, ...]
    scaled: bool


def is_leaf(module: Any) -> bool:
    """Return whether a module is a library's own and computes from its input alone: it has no weights and no parts."""
    parts = (*module.children(), *module.parameters(recurse=False), *module.buffers(recurse=False))
    return not parts and not type(module).__module__.startswith("torch.nn.")


def read(module: Any, rank: int) -> Custom | None:
    """Return what ``module`` drops of a tensor of that rank; None where a mask and a factor cannot say it.

    One of its numbers is the fraction that it drops, or keeps: the one that the draws follow when it is changed, in a
    copy. torch's generator stays where it is.
    """
    if not 1 <= rank <= len(_SIZES):
        return None
    numbers = {name: value for name, value in vars(module).items() if isinstance(value, float) and 0.0 < value < 1.0}
    for name, value in numbers.items():
        half, quarter = (_seen(module, name, share, rank) for share in (0.5, 0.25))
        if half is None or quarter is None or half[0] != quarter[0]:
            continue
        scale, (_, fewer, zeros) = half[1], quarter
        dropped = zeros < 0.5  # of a quarter: it follows the fraction dropped, not the one kept
        expected = {1.0: False, 1 / 0.75 if dropped else 4.0: True}
        scaled = next((known for number, known in expected.items() if abs(fewer - number) < 1e-3), None)
        if scaled is not None and abs(scale - (2.0 if scaled else 1.0)) < 1e-3:
            return Custom(value if dropped else 1.0 - value, half[0], scaled)
    return None


def _seen(module: Any, name: str, share: float, rank: int) -> tuple[tuple[int, ...], float, float] | None:
    """Return shared axes, scale and fraction of zeros where the layer's number ``name`` is ``share``; else None."""
    twin = copy.copy(module)
    twin.__dict__[name] = share
    twin.__dict__["training"] = True
    try:
        draws = list(_draws(twin, torch.ones(_SIZES[:rank])))
    except Exception:  # noqa: BLE001, code of a library's own: what cannot be run is not known
        return None
    first = draws[0]
    if any(not isinstance(each, torch.Tensor) or each.shape != first.shape for each in draws):
        return None
    seen = torch.stack(draws)
    values = sorted(set(seen.flatten().tolist()))
    if seen.shape[1:] != _SIZES[:rank] or len(values) != 2 or values[0] != 0.0:
        return None
    axes = tuple(axis for axis in range(rank) if bool((seen == seen.narrow(axis + 1, 0, 1)).all()))
    return axes, values[1], float((seen == 0).float().mean())


def _draws(module: Any, ones: Any) -> Iterator[Any]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for _ in range(_DRAWS):
            yield module(ones.clone())
