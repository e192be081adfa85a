"""Names for new values and nodes that nothing in the model has yet. It reads the model and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_spatialdrop.graph import scopes

__all__ = ["Names"]


class Names:
    """Prefixes that no name in a model starts with, so that a group needs no further check of its own names."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for scope in scopes.scopes(model):
            home = scope.graph if isinstance(scope, ir.Function) else scope
            for graph in (home, *scope.subgraphs()):
                self._take([*(value.name for value in graph.inputs), *graph.initializers])
        for node in scopes.all_nodes(model):
            self._take([node.name, *(value.name for value in node.outputs)])

    def _take(self, names: Sequence[str | None]) -> None:
        for name in names:
            parts = (name or "").split("/")
            self._taken.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))

    def prefix(self, wanted: str) -> str:
        """Return ``wanted``, or ``wanted_2``, ``wanted_3``, ... where that is taken; it is taken from then on."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name
