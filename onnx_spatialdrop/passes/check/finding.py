"""One thing that will go wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One finding of check.

    Attributes:
        rule: which rule found it, such as "deleted-dropout"; docs/check.md lists them.
        nodes: names of the nodes, or of the tensors, that it is about.
        message: what is wrong.
        fix: what to do.
    """

    rule: str
    nodes: tuple[str, ...]
    message: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """Return the finding in types that JSON has."""
        return {"rule": self.rule, "nodes": list(self.nodes), "message": self.message, "fix": self.fix}

    def __str__(self) -> str:
        return f"{self.rule}: {', '.join(self.nodes)}: {self.message}. Fix: {self.fix}."
