"""What an export leaves out of a model's dropout: a list, and a warning that names the layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["LeftOut", "LeftOutWarning", "warn"]

#: How many layers of one kind a warning names.
_NAMED: Final = 6


@dataclass(frozen=True)
class LeftOut:
    """Dropout of a layer that the exported model does not hold.

    Attributes:
        layer: the layer's qualified name; "" is the model itself.
        what: what the layer does in training: "element-wise dropout", "alpha dropout", ...
        advice: how to have it in the model, or why it cannot be.
        ratio: fraction dropped; None where it is not known.
    """

    layer: str
    what: str
    advice: str
    ratio: float | None = None


class LeftOutWarning(UserWarning):
    """An export left dropout out.

    Attributes:
        left_out: all of it, which the text names in part.
    """

    def __init__(self, left_out: Iterable[LeftOut]) -> None:
        self.left_out = tuple(left_out)
        groups: dict[tuple[str, str], dict[str, None]] = {}
        for each in self.left_out:
            groups.setdefault((each.what, each.advice), {})[each.layer] = None
        parts = [f"{what} in {_names(list(layers))} ({advice})" for (what, advice), layers in groups.items()]
        super().__init__(f"not in the exported model: {'; '.join(parts)}")


def warn(left_out: Iterable[LeftOut], stacklevel: int = 1) -> None:
    """Warn of what was left out, if there is any; ``stacklevel`` counts as in warnings.warn, from the caller on."""
    warning = LeftOutWarning(left_out)
    if warning.left_out:
        warnings.warn(warning, stacklevel=stacklevel + 1)


def _names(layers: list[str]) -> str:
    shown = [repr(layer) if layer else "the model itself" for layer in layers[:_NAMED]]
    more = len(layers) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
