"""One node as the rules of the batch axis see it: its operator, attributes and what is known of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.montecarlo.facts import Dim, Fact, Unproven

__all__ = ["UNUSABLE", "Place", "Places", "Rule", "View", "needs_broadcast", "same_place"]

#: Where the rows of an output are: axis and block; None: all samples share it.
Place = tuple[int, int] | None
#: An output of which nothing can be said, though the node's other outputs are fine.
UNUSABLE: Final[Place] = (-1, 0)
#: One place for all outputs, or one each.
Places = Place | list[Place]


@dataclass(frozen=True)
class View:
    """A node.

    Attributes:
        node: the node itself.
        inputs: what is known of its inputs; None for one that is left out.
        opset: the version of its domain that its model imports.
    """

    node: ir.Node
    inputs: Sequence[Fact | None]
    opset: int

    def get(self, index: int) -> Fact:
        """Return an input.

        Raises:
            Unproven: it is left out, or nothing is known of it.
        """
        fact = self.maybe(index)
        if fact is None:
            raise Unproven("an input is left out")
        return fact

    def maybe(self, index: int) -> Fact | None:
        """Return an input, or None where it is left out."""
        fact = self.inputs[index] if index < len(self.inputs) else None
        if fact is not None and fact.mixed:
            raise Unproven(fact.mixed)
        return fact

    def shared_from(self, start: int) -> None:
        """Raise Unproven unless all inputs from ``start`` on are the same for every sample."""
        for index in range(start, len(self.inputs)):
            fact = self.maybe(index)
            if fact is not None and not fact.shared:
                raise Unproven("a parameter depends on the samples")

    def rows(self, index: int = 0) -> tuple[int, int, int]:
        """Return axis, block and rank of an input that has rows.

        Raises:
            Unproven: it has none, or its rank is unknown.
        """
        fact = self.get(index)
        if fact.axis is None:
            raise Unproven("it mixes what all samples share with samples")
        return fact.axis, fact.block, fact.rank

    def first_axis(self, index: int = 0) -> tuple[int, int]:
        """Return the place of an input whose rows are along axis 0."""
        axis, block, _ = self.rows(index)
        if axis != 0:
            raise Unproven(f"the samples are along axis {axis}, not 0")
        return axis, block

    def dims(self, index: int = 0) -> tuple[Dim, ...]:
        """Return the sizes of an input of known rank."""
        fact = self.get(index)
        if fact.dims is None:
            raise Unproven("the rank of an input is unknown")
        return fact.dims

    def axes(self, rank: int, position: int = 1) -> list[int] | None:
        """Return the axes that the attribute or the constant input ``axes`` names; None where there is none."""
        if "axes" in self.node.attributes:
            named = list(self.node.attributes["axes"].as_ints())
        else:
            fact = self.maybe(position)
            if fact is None:
                return None
            named = fact.ints()
        if any(not -rank <= axis < rank for axis in named):
            raise Unproven("it names an axis that its input does not have")
        return [axis % rank for axis in named]

    def axis(self, default: int, rank: int) -> int:
        """Return the attribute ``axis``, counted from the front."""
        axis = self.node.attributes.get_int("axis", default)
        if not -rank <= axis < rank:
            raise Unproven("it names an axis that its input does not have")
        return axis % rank


Rule = Callable[[View], Places]


def same_place(places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the place that all of ``places`` are.

    Raises:
        Unproven: they differ.
    """
    if len(set(places)) != 1:
        raise Unproven("the samples of its inputs are along different axes")
    return places[0]


def needs_broadcast(dims: Sequence[object], axis: int) -> None:
    """Raise Unproven unless what all samples share is repeated along the samples' axis."""
    if axis >= 0 and dims[axis] != 1:
        raise Unproven("what all samples share has a size along the samples' axis")
