"""torch's functions, replaced for a while. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch

__all__ = ["KINDS", "replaced"]

#: torch's dropout operators, each with a twin that works in place, and the kind that this package calls them.
KINDS: Final = {
    "feature_dropout": "feature",
    "feature_alpha_dropout": "feature_alpha",
    "dropout": "elementwise",
    "alpha_dropout": "alpha",
}


@contextmanager
def replaced(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let functions stand in for torch's of these names, inside the context; contexts may be inside one another."""
    variables: Any = torch._VF  # where torch.nn.functional looks; it forwards to torch what it has not itself
    originals = {name: getattr(torch, name) for name in functions}
    covered = {name: vars(variables)[name] for name in functions if name in vars(variables)}
    try:
        for name, function in functions.items():
            for home in (torch, variables):
                setattr(home, name, function)
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)
            vars(variables).pop(name, None)
        vars(variables).update(covered)
