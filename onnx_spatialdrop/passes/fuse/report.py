"""What fuse found: one record a candidate, fused or refused, with what was proven of it. Data and text only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Record", "Report"]


@dataclass(frozen=True)
class Record:
    """One dropout, or one thing that might have been one.

    Attributes:
        name: the SpatialDropout node, where fused; else the random node (or frozen mask) that raised the question.
        kind: "spatial", "elementwise", "drop_path" (one entry a sample), "variational" (shared over time),
            "shared_mask" (one mask, several uses), "alpha", "feature_alpha", "gaussian", "frozen" or "unknown".
        nodes: names of the nodes that make it up, the random node first.
        axes: the axes along which one mask entry is shared; None where that was not proven.
        ratio: fraction dropped, as its author wrote it; None where nothing is dropped.
        scale: what kept values are multiplied by.
        rank: the rank of x.
        seed: the fused node's seed.
        tied: the fused node shares its mask, and so its seed, with another one.
        proven: what was proven, in words.
        reason: why it was refused; "" where it was fused.
        notes: what is wrong with the file here, fused or not.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    axes: tuple[int, ...] | None = None
    ratio: float | None = None
    scale: float | None = None
    rank: int | None = None
    seed: int | None = None
    tied: bool = False
    proven: tuple[str, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the record in types that JSON has."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self.__dict__.items()}

    def lines(self) -> list[str]:
        """Return the record as lines of text, the first of which says what was done."""
        what = [self.kind]
        if self.ratio is not None:
            what.append(f"ratio {self.ratio:g}")
        if self.axes is not None:
            what.append(f"axes {list(self.axes)}")
        lines = [f"{'refused' if self.reason else 'fused'} {self.name!r}: {', '.join(what)}"]
        lines += [f"  proven: {fact}" for fact in self.proven]
        if self.reason:
            lines.append(f"  not proven: {self.reason}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  nodes: {', '.join(self.nodes)}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass
class Report:
    """What explain returns.

    Attributes:
        fused: one record for each SpatialDropout node that was made.
        refused: one record for each candidate that was left as it was.
    """

    fused: list[Record] = field(default_factory=list)
    refused: list[Record] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report in types that JSON has."""
        return {
            "fused": [record.as_dict() for record in self.fused],
            "refused": [record.as_dict() for record in self.refused],
        }

    def lines(self) -> list[str]:
        """Return the report as lines of text; the first counts, the others are the records'."""
        head = f"{len(self.fused)} fused, {len(self.refused)} refused"
        return [head, *(line for record in [*self.fused, *self.refused] for line in record.lines())]

    def __str__(self) -> str:
        return "\n".join(self.lines())
