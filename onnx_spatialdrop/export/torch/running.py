"""Which module of a network is running: its qualified name, as long as its forward pass lasts. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["running"]


@contextmanager
def running(module: Any) -> Iterator[list[tuple[str, ...]]]:
    """Keep the qualified names of the modules that are running, innermost last; all names of each."""
    names: dict[int, tuple[str, ...]] = {}
    for name, each in module.named_modules(remove_duplicate=False):
        names[id(each)] = (*names.get(id(each), ()), name)
    stack: list[tuple[str, ...]] = [("",)]
    # A module that is not the module's own (made in a forward pass) runs in the name of its caller.
    hooks = [
        register_module_forward_pre_hook(lambda each, _: stack.append(names.get(id(each), stack[-1]))),
        register_module_forward_hook(lambda *_: (stack.pop(), None)[1], always_call=True),
    ]
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()
