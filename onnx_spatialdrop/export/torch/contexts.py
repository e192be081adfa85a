"""Contexts of exporting() inside one another: the innermost counts, and those around it are off meanwhile.

torch is given, not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["innermost"]


@dataclass(eq=False)
class _Context:
    export: Callable[..., Any]
    hooks: Callable[[], AbstractContextManager[None]]
    entered: ExitStack = field(default_factory=ExitStack)

    def on(self) -> None:
        self.entered.enter_context(self.hooks())

    def off(self) -> None:
        self.entered.close()


#: Those that are open, innermost last; only the last one's hooks are on.
_OPEN: Final[list[_Context]] = []


@contextmanager
def innermost(
    torch: Any, export: Callable[..., Any], hooks: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """Let ``torch.onnx.export`` be ``export`` and have ``hooks`` on, inside the context.

    Args:
        torch: the module.
        export: called with torch's own function and then with what the caller gave.
        hooks: makes a context in which torch is changed; called again when a context inside this one has ended. A
            change of another export's, of a symbolic say, could not be put back while it is covered by one of ours.
    """
    original = torch.onnx.export

    def dispatch(*arguments: Any, **keywords: Any) -> Any:
        return _OPEN[-1].export(original, *arguments, **keywords)

    with ExitStack() as undo:
        if _OPEN:
            undo.callback(_OPEN[-1].on)
            _OPEN[-1].off()
        else:
            undo.callback(setattr, torch.onnx, "export", original)
            torch.onnx.export = dispatch
        context = _Context(export, hooks)
        undo.callback(_OPEN.remove, context)
        _OPEN.append(context)
        undo.callback(context.off)
        context.on()
        yield
