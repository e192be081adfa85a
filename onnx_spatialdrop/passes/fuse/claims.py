"""What a run of fuse says is gone, and by whose doing; and the second run without what turned out wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import onnx_ir as ir

from onnx_spatialdrop.errors import PostconditionError

__all__ = ["Claims", "key_of", "rerun"]

T = TypeVar("T")


class Claims:
    """The nodes that stand for dropout.

    Attributes:
        owners: the nodes, and a key of the dropout that each is part of.
    """

    def __init__(self) -> None:
        self.owners: dict[ir.Node, str] = {}

    def add(self, key: str, nodes: Iterable[ir.Node]) -> None:
        """Claim ``nodes`` for the dropout ``key``."""
        self.owners.update(dict.fromkeys(nodes, key))

    def of(self, node: object) -> set[str]:
        """Return whose ``node`` is; everybody, where it is nobody's."""
        return {self.owners[node]} if isinstance(node, ir.Node) and node in self.owners else set(self.owners.values())


def key_of(source: ir.Node) -> str:
    """Return what a random node is known by from one copy of the model to the next."""
    return source.outputs[0].name or ""


def rerun(function: Callable[[], T], excluded: Mapping[str, str]) -> T:
    """Return what ``function`` returns, which rewrites a fresh copy of a model.

    Args:
        function: raises a PostconditionError where the result would be wrong, and adds the culprits to ``excluded``,
            which it leaves alone from then on.
        excluded: keys of dropouts that are left alone, and why.
    """
    while True:
        known = len(excluded)
        try:
            return function()
        except PostconditionError:
            if len(excluded) == known:
                raise
