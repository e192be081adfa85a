"""Where each layer's generator is at the model's step: seeds, counters, and the nodes that compute one of the other.

A framework's layer draws by a seed and a counter of its own draws; a model has one ``step``. This module knows no
framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.dialects import DIALECTS

__all__ = ["NEXT_STEP_KEY", "Counted", "Draw", "StepInputs", "count", "own_seeds"]

#: metadata_props of a model: the step of the training call that the framework's model would make next.
NEXT_STEP_KEY: Final = "onnx_spatialdrop.next_step"


@dataclass(frozen=True)
class Draw:
    """One draw of a framework's generator in a training call of the model.

    Attributes:
        rng: the dialect.
        seed: the generator's seed, in [-2**63, 2**64).
        count: how many draws the generator has made when the model is exported.
        first: how many draws of a training call it makes before this one.
        draws: how many it makes in a training call; 0: this one takes none, as at rate 1.
    """

    rng: str
    seed: int
    count: int
    first: int = 0
    draws: int = 1


@dataclass(frozen=True)
class Counted:
    """What a node's step is: ``step * stride + offset``; where step is negative, ``step - sequence``.

    Attributes:
        stride: how far the counter moves in a training call, 1 or more.
        offset: 0 or more.
        sequence: which of the node's equals (nodes that draw from one stream) this is, so that fresh draws differ.
    """

    stride: int = 1
    offset: int = 0
    sequence: int = 0


def count(draws: Sequence[Draw]) -> tuple[list[Counted], int]:
    """Return for each draw how its counter follows from the model's step, and the step of the next training call.

    The next training call has as its step the number of training calls that the generators have seen (draws made,
    divided by draws a call, rounded down): where they have not all seen equally many, the smallest. So where each
    layer draws once a call and all count alike, the step is their counter; and no offset is negative.
    """
    counts = [draw.count % DIALECTS[draw.rng].period for draw in draws]
    calls = [number // draw.draws for number, draw in zip(counts, draws, strict=True) if draw.draws]
    upcoming = min(calls, default=0)
    seen: Counter[tuple[str, int]] = Counter()
    found = []
    for number, draw in zip(counts, draws, strict=True):
        stream = (DIALECTS[draw.rng].words, draw.seed % DIALECTS[draw.rng].period)
        offset = number + draw.first - upcoming * draw.draws if draw.draws else 0
        found.append(Counted(max(draw.draws, 1), offset, seen[stream]))
        seen[stream] += 1
    return found, upcoming


def own_seeds(draws: Sequence[Draw], taken: set[int]) -> list[int]:
    """Return a seed for each draw that draws as the generator's own does, no seed twice; they are added to ``taken``.

    Dialects take seeds modulo their period, so that nodes which draw from one stream can still be told apart by their
    seeds: optimisers merge equal nodes.
    """
    found = []
    for draw in draws:
        period = DIALECTS[draw.rng].period
        seed = spec.signed_seed(draw.seed)
        forward = seed < 2**62
        while seed in taken:
            seed += period if forward else -period
        taken.add(seed)
        found.append(seed)
    return found


class StepInputs:
    """The steps of a model's nodes, made of its input ``step``; equal ones are made once."""

    def __init__(self, model: ir.Model, step: ir.Value) -> None:
        self._graph = model.graph
        self._step = step
        self._names = Names(model)
        self._made: dict[Counted, ir.Value] = {Counted(): step}
        self._constants: dict[int, ir.Value] = {}
        self._negative: ir.Value | None = None
        self._nodes: list[ir.Node] = []

    def value(self, counted: Counted) -> ir.Value:
        """Return the value to feed to a node; ``insert`` puts the nodes that compute it into the graph."""
        if counted not in self._made:
            self._made[counted] = self._make(counted)
        return self._made[counted]

    def insert(self) -> None:
        """Put the new nodes before all others."""
        if self._nodes:
            self._graph.insert_before(self._graph[0], self._nodes)

    def _make(self, counted: Counted) -> ir.Value:
        name = self._names.prefix(
            f"{self._step.name}/times_{counted.stride}_plus_{counted.offset}"
            + (f"_sequence_{counted.sequence}" if counted.sequence else "")
        )
        if self._negative is None:
            negative = self._names.prefix(f"{self._step.name}/negative")
            self._negative = self._add("Less", [self._step, self._constant(0)], negative, ir.DataType.BOOL)
        number = fresh = self._step
        if counted.stride != 1:
            number = self._add("Mul", [number, self._constant(counted.stride)], f"{name}/times")
        if counted.offset:
            number = self._add("Add", [number, self._constant(counted.offset)], f"{name}/plus")
        if counted.sequence:
            fresh = self._add("Sub", [fresh, self._constant(counted.sequence)], f"{name}/fresh")
        return self._add("Where", [self._negative, fresh, number], name)

    def _add(
        self, op_type: str, inputs: Sequence[ir.Value], name: str, dtype: ir.DataType = ir.DataType.INT64
    ) -> ir.Value:
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=self._step.shape and ir.Shape(self._step.shape))
        self._nodes.append(ir.Node("", op_type, inputs, outputs=[output], name=name))
        return output

    def _constant(self, number: int) -> ir.Value:
        if number not in self._constants:
            name = self._names.prefix(f"{self._step.name}/constant_{number}")
            tensor = ir.tensor(np.array(number, np.int64), name=name)
            value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([]), const_value=tensor)
            self._graph.register_initializer(value)
            self._constants[number] = value
        return self._constants[number]
