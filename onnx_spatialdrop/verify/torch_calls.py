"""Find each call of torch's dropout during a forward pass, and which layer of the model it is. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from onnx_spatialdrop.export.torch.functions import replaced
from onnx_spatialdrop.graph.layers import split_name
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.verify.framework import Layer

__all__ = ["Drop", "Matcher", "intercepted"]

#: torch's dropout operators that exports keep -> what they share. Alpha dropout stays off, as exports have it.
_KINDS: Final = {"feature_dropout": "feature", "dropout": "elementwise"}

#: (the layer, torch's operator, x, p, kind) -> y.
Drop = Callable[[Layer, Callable[..., Any], Any, float, str], Any]


class Matcher:
    """Tells calls apart: a module's first call is the layer of its name, its second one "name:1", and so on."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._waiting = {layer.name: layer for layer in layers}

    def take(self, names: Sequence[str], kind: str, rank: int) -> Layer | None:
        """Return the layer of the next call of a module; None where the model has none, because it was left out.

        Args:
            names: the module's qualified names, more than one where it is reached in several ways.
            kind: "feature" or "elementwise".
            rank: of what the call reads.
        """
        called = {name or spec.OP_TYPE for name in names}
        possible = []
        for place, waiting in enumerate(self._waiting.values()):
            layer, call = split_name(waiting.name)
            if layer in called and _fits(waiting, kind, rank):
                possible.append((call, place, waiting))
        if not possible:
            return None
        found = min(possible, key=lambda each: each[:2])[2]
        del self._waiting[found.name]
        return found


def _fits(layer: Layer, kind: str, rank: int) -> bool:
    return (layer.axes == ()) == (kind == "elementwise" or rank <= 2)


@contextmanager
def intercepted(module: Any, matcher: Matcher, drop: Drop) -> Iterator[None]:
    """Let ``drop`` stand in for torch's dropouts that the model has, inside the context; all others are off."""
    originals = {f"{name}{end}": getattr(torch, f"{name}{end}") for name in _KINDS for end in ("", "_")}

    with _running(module) as running:

        def standing_in(name: str) -> Callable[..., Any]:
            plain = name.rstrip("_")

            def call(x: Any, p: float, train: bool) -> Any:
                del train  # the model's switch decides, whatever the module says
                layer = matcher.take(running[-1], _KINDS[plain], x.dim()) if p > 0 else None
                if layer is None:
                    return x
                y = drop(layer, originals[plain], x, p, _KINDS[plain])
                return x.copy_(y) if name != plain else y

            return call

        with replaced({name: standing_in(name) for name in originals}):
            yield


@contextmanager
def _running(module: Any) -> Iterator[list[tuple[str, ...]]]:
    """Keep the qualified names of the modules that are running, innermost last; all names of each."""
    names: dict[int, tuple[str, ...]] = {}
    for name, each in module.named_modules(remove_duplicate=False):
        names[id(each)] = (*names.get(id(each), ()), name)
    running: list[tuple[str, ...]] = [("",)]
    # A module that is not the module's own (made in a forward pass) runs in the name of its caller.
    hooks = [
        register_module_forward_pre_hook(lambda each, _: running.append(names.get(id(each), running[-1]))),
        register_module_forward_hook(lambda *_: (running.pop(), None)[1], always_call=True),
    ]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
