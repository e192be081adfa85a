"""Find each call of torch's dropout during a forward pass, and which layer of the model it is. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from onnx_spatialdrop.export.torch import composites
from onnx_spatialdrop.export.torch.capture import shared_axes
from onnx_spatialdrop.export.torch.custom import Custom
from onnx_spatialdrop.export.torch.forwards import bound, lively, unfused
from onnx_spatialdrop.export.torch.functions import KINDS, replaced
from onnx_spatialdrop.export.torch.running import running
from onnx_spatialdrop.export.torch.survey import Survey
from onnx_spatialdrop.graph.layers import split_name
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.verify.framework import Layer

__all__ = ["Drop", "Dropping", "Matcher", "intercepted"]

#: torch's dropouts that exports keep. Alpha dropout stays off, as exports have it.
_KEPT: Final = {name: kind for name, kind in KINDS.items() if "alpha" not in kind}


@dataclass(frozen=True)
class Dropping:
    """A call of a dropout.

    Attributes:
        axes: the axes along which it shares a mask entry.
        run: x -> what the layer makes of x in training mode, with torch's generator.
        ratio: fraction dropped, where torch's rule draws the mask; None where only ``run`` can.
    """

    axes: tuple[int, ...]
    run: Callable[[Any], Any]
    ratio: float | None = None


#: (the layer, x, the call) -> y.
Drop = Callable[[Layer, Any, Dropping], Any]


class Matcher:
    """Tells calls apart: a module's first call is the layer of its name, its second one "name:1", and so on."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._waiting = {layer.name: layer for layer in layers}

    def take(self, names: Sequence[str], axes: tuple[int, ...]) -> Layer | None:
        """Return the layer of the next call of a module; None where the model has none, because it was left out.

        Args:
            names: the module's qualified names, more than one where it is reached in several ways.
            axes: those along which the call shares a mask entry.
        """
        called = {name or spec.OP_TYPE for name in names}
        possible = []
        for place, waiting in enumerate(self._waiting.values()):
            layer, call = split_name(waiting.name)
            if layer in called and (waiting.axes == ()) == (axes == ()):
                possible.append((call, place, waiting))
        if not possible:
            return None
        found = min(possible, key=lambda each: each[:2])[2]
        del self._waiting[found.name]
        return found


@contextmanager
def intercepted(module: Any, seen: Survey, matcher: Matcher, drop: Drop) -> Iterator[None]:
    """Let ``drop`` stand in for the dropouts that the model has, inside the context; all others are off.

    Args:
        module: what runs.
        seen: its survey: which of its parts show their dropout in training mode only.
        matcher: finds the model's layer.
        drop: what is done at a call that the model has.
    """
    originals = {f"{name}{end}": getattr(torch, f"{name}{end}") for name in _KEPT for end in ("", "_")}
    with running(module) as names:

        def standing_in(name: str) -> Callable[..., Any]:
            plain = name.rstrip("_")
            own = originals[plain]

            def call(x: Any, p: float, train: bool) -> Any:
                del train  # the model's switch decides, whatever the module says
                axes = shared_axes(_KEPT[plain], x.dim())
                layer = matcher.take(names[-1], axes) if p > 0 else None
                if layer is None:
                    return x
                y = drop(layer, x, Dropping(axes, lambda value: own(value, p, True), float(p)))
                return x.copy_(y) if name != plain else y

            return call

        def custom(ranks: Mapping[int, Custom]) -> Callable[..., Any]:
            def forward(part: Any, original: Callable[..., Any], x: Any) -> Any:
                known = ranks.get(x.dim())
                layer = None if known is None else matcher.take(names[-1], known.axes)
                if known is None or layer is None:
                    return original(x)
                return drop(layer, x, Dropping(known.axes, lambda value: lively(part, original, value)))

            return forward

        forwards = dict.fromkeys(seen.forced, lively) | {name: custom(ranks) for name, ranks in seen.custom.items()}
        functions = {name: standing_in(name) for name in originals}
        with unfused(), composites.apart(), replaced(functions), bound(module, forwards):
            yield
