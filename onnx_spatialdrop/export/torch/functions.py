"""torch's functions, replaced for a while. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["replaced"]


@contextmanager
def replaced(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let functions stand in for torch's of these names, inside the context."""
    variables: Any = torch._VF  # where torch.nn.functional looks; it forwards to torch what it has not itself
    originals = {name: getattr(torch, name) for name in functions}
    try:
        for name, function in functions.items():
            for home in (torch, variables):
                setattr(home, name, function)
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)
            vars(variables).pop(name, None)
