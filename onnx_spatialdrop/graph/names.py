"""Names for new values and nodes that nothing in the model has yet. It reads the model and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.storage.survey import Survey

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

    @classmethod
    def in_survey(cls, survey: Survey) -> Names:
        """Return the same for a model that is still a protobuf."""
        made = cls.__new__(cls)
        made._taken = set()
        for block in survey.blocks:
            made._take(block.defined)
            made._take(node.name for node in block.body.node)
        return made

    def _take(self, names: Iterable[str | None]) -> None:
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
