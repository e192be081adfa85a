"""What a verification found, as data and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

__all__ = ["Divergence", "LayerResult", "OutputResult", "Verification", "What"]

What = Literal["shape", "input", "mask", "value", "output"]


@dataclass(frozen=True)
class Divergence:
    """One place where the two part.

    Attributes:
        step: the number of the pass.
        layer: the layer's name; for an output the output's.
        what: "shape" (the mask's), "input" (what reaches the layer), "mask", "value" (what the layer makes of its
            input) or "output".
        text: what was found, one line.
    """

    step: int
    layer: str
    what: What
    text: str

    def __str__(self) -> str:
        kind = "output" if self.what == "output" else "layer"
        return f"step {self.step}, {kind} {self.layer!r}: {self.text}"


@dataclass(frozen=True)
class LayerResult:
    """What all steps together say of a layer.

    Attributes:
        layer: its name.
        steps: how many passes were compared.
        entries: mask entries compared.
        equal: how many of them are equal.
        dropped: how many of them the framework dropped.
        first: where it parts first; None where it does not.
    """

    layer: str
    steps: int
    entries: int
    equal: int
    dropped: int
    first: Divergence | None


@dataclass(frozen=True)
class OutputResult:
    """What all steps together say of an output.

    Attributes:
        output: its name.
        difference: the largest difference in any step, relative to the largest value of that output in that step.
        limit: what ``difference`` may be.
        first: where it parts first; None where it does not.
    """

    output: str
    difference: float
    limit: float
    first: Divergence | None


@dataclass(frozen=True)
class Verification:
    """The result of verify; true where all masks are equal and all values are as close as they must be.

    Attributes:
        framework: what the model was compared with, and its version.
        runtime: what ran the model, and its version.
        steps: how many passes were asked for.
        layers: one result a layer, in the order of the file.
        outputs: one result an output.
        divergences: every place where the two part, the first one first: by step, then by the order of the file.
        notes: what else is worth knowing.
    """

    framework: str
    runtime: str
    steps: int
    layers: tuple[LayerResult, ...]
    outputs: tuple[OutputResult, ...]
    divergences: tuple[Divergence, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.divergences

    @property
    def first(self) -> Divergence | None:
        """Where the two part first; None where they do not."""
        return self.divergences[0] if self.divergences else None

    def as_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON has."""
        return {"equal": bool(self), **asdict(self)}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the table's cells: layer or output, what was compared, and what was found."""
        layers = [(e.layer, f"{e.equal} of {e.entries}", str(e.dropped), _found(e.first)) for e in self.layers]
        outputs = [(f"output {e.output}", f"{e.difference:.1e} apart", "", _found(e.first)) for e in self.outputs]
        return [*layers, *outputs]

    def headline(self) -> str:
        """Return the verdict in one line."""
        with_what = f"{self.framework} and {self.runtime}, {_count(self.steps, 'step')}"
        if self.first is None:
            entries = sum(layer.entries for layer in self.layers)
            return f"equal: {with_what}, {_count(len(self.layers), 'layer')}, {entries} mask entries"
        return f"different: {with_what}; first at {self.first}"

    def __str__(self) -> str:
        rows = [("layer", "equal entries", "dropped", "found"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
        return "\n".join([self.headline(), *(line.rstrip() for line in lines), *(f"note: {n}" for n in self.notes)])


def _found(first: Divergence | None) -> str:
    return "equal" if first is None else f"step {first.step}: {first.text}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def sort(divergences: Sequence[Divergence], order: Sequence[str]) -> tuple[Divergence, ...]:
    """Return ``divergences`` by step, then by the place of their layer in ``order``; outputs last."""
    place = {name: index for index, name in enumerate(order)}
    kinds = get_args(What)
    return tuple(
        sorted(
            divergences,
            key=lambda d: (
                d.step,
                d.what == "output",
                0 if d.what == "output" else place[d.layer],
                kinds.index(d.what),
            ),
        )
    )
