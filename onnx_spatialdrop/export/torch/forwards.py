"""Forward passes of a module's parts, changed for a while: in training mode, replaced, or kept from being fused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["bound", "lively", "unfused"]


@contextmanager
def unfused() -> Iterator[None]:
    """Keep torch's transformer layers from the one operator that they become in inference mode, without dropout."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def bound(module: Any, forwards: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let ``forwards[name](part, forward, ...)`` stand in for the forward pass of the part of that name."""
    parts = {name: part for name, part in module.named_modules() if name in forwards}
    before = {name: part.__dict__.get("forward") for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.__dict__["forward"] = _binding(forwards[name], part, part.forward)
        yield
    finally:
        for name, part in parts.items():
            del part.__dict__["forward"]
            if before[name] is not None:
                part.__dict__["forward"] = before[name]


def lively(part: Any, forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Stand in for the forward pass of a part that is to be in training mode, alone of all, as long as it runs."""
    before, part.training = part.training, True
    try:
        return forward(*arguments, **keywords)
    finally:
        part.training = before


def _binding(function: Callable[..., Any], part: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    def bound_forward(*arguments: Any, **keywords: Any) -> Any:
        return function(part, forward, *arguments, **keywords)

    return bound_forward
