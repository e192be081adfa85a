"""The sessions of a cut model: what runs once, draws laid behind each other, and draws with running sums.

Sessions are made when they are first needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.montecarlo import cost, parts
from onnx_spatialdrop.montecarlo.facts import Multiple
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.rounds import Rows, Sums, chunks
from onnx_spatialdrop.montecarlo.tasks import Target

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Engine"]

Array = npt.NDArray[Any]


class Engine:
    """Runs the parts of a cut model.

    Attributes:
        plan: the cut.
        peak: bytes of activations of a row of the suffix, estimated.
        row: bytes of a row of one draw of the outputs.
    """

    def __init__(
        self, plan: Plan, targets: Sequence[Target], open_session: Callable[[ir.Model], onnxruntime.InferenceSession]
    ) -> None:
        self.plan = plan
        self.peak = max(1, cost.peak_bytes(plan.suffix, plan.facts, {}))
        self.row = max(1, sum(cost.bytes_of(plan.facts[value], {}) for value in plan.stochastic))
        self._step = plan.prepared.step.name or ""
        self._targets, self._open = targets, open_session
        known = [(value.name or "", plan.facts[value]) for value in plan.boundary]
        self._places = {name: (fact.axis, fact.block) for name, fact in known if fact.axis is not None}
        self._sizes = {
            name: np.array([isinstance(entry, Multiple) for entry in fact.entries or ()]).reshape(_shape(fact.rank))
            for name, fact in known
            if fact.counts_rows
        }
        doubles = int(ir.DataType.DOUBLE)
        self._zeros = {
            target.value.name or "": np.array(0, "d" if plan.facts[target.value].dtype == doubles else "f")
            for target in targets
        }

    @cached_property
    def _prefix(self) -> onnxruntime.InferenceSession | None:
        model = parts.prefix_model(self.plan)
        return self._open(model) if model.graph.outputs else None

    @cached_property
    def _suffix(self) -> onnxruntime.InferenceSession:
        return self._open(_without_sizes(parts.suffix_model(self.plan)))

    @cached_property
    def _sums(self) -> tuple[parts.SumsModel, onnxruntime.InferenceSession]:
        made = parts.sums_model(self.plan, self._targets)
        return made, self._open(_without_sizes(made.model))

    @cached_property
    def _whole(self) -> onnxruntime.InferenceSession:
        return self._open(self.plan.prepared.model)

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> dict[str, Array]:
        """Return some rows of the inputs; an input whose samples are not known to be along an axis stays whole."""
        picked = dict(feeds)
        for value in self.plan.prepared.model.graph.inputs:
            fact, name = self.plan.facts.get(value), value.name or ""
            if name in feeds and (value is self.plan.batch or (fact is not None and fact.axis is not None)):
                axis = 0 if fact is None or fact.axis is None else fact.axis
                picked[name] = np.take(feeds[name], rows, axis=axis)
        return picked

    def fingerprint(self) -> str:
        """Return a hash of the model, its weights in the file included."""
        content = ir.to_proto(self.plan.prepared.model).SerializeToString(deterministic=True)
        return hashlib.sha256(content).hexdigest()

    def prepare(self, feeds: Mapping[str, Array], first: Array) -> tuple[Rows, dict[str, Array]]:
        """Run what is the same for every draw; return what draws read, and the outputs that no draw touches."""
        values = dict(feeds)
        if self._prefix is not None:
            taken = {value.name: feeds[value.name] for value in self._prefix.get_inputs() if value.name in feeds}
            names = [value.name for value in self._prefix.get_outputs()]
            values.update(zip(names, self._prefix.run(names, taken), strict=True))
        boundary = {value.name or "": values[value.name or ""] for value in self.plan.boundary if value.name in values}
        fixed = {value.name or "": values[value.name or ""] for value in self.plan.fixed}
        return Rows(boundary, self._places, self._sizes, first), fixed

    def draw(self, rows: Rows, samples: int, size: int) -> dict[str, Array]:
        """Return ``samples`` draws of the outputs, [T, N, ...], ``size`` at once."""
        names = [value.name or "" for value in self.plan.stochastic]
        drawn: dict[str, list[Array]] = {name: [] for name in names}
        tiles = _Tiles(rows)
        for start, count in chunks(0, samples, size):
            feed = {**tiles.of(count), self._step: rows.steps(start, count)}
            for name, y in zip(names, self._suffix.run(names, feed), strict=True):
                drawn[name].append(y.reshape(count, -1, *y.shape[1:]) if self.plan.proven else y[None])
        return {name: np.concatenate(each) for name, each in drawn.items()}

    def add(self, rows: Rows, sums: Sums, start: int, end: int, size: int) -> Sums:
        """Return the sums with draws ``start`` to ``end`` added, ``size`` at once."""
        made, session = self._sums
        tiles = _Tiles(rows)
        wanted = [name for keys in made.after.values() for name in keys.values()]
        for at, count in chunks(start, end, size):
            feed: dict[str, Any] = {**tiles.of(count), self._step: rows.steps(at, count)}
            feed[made.done], feed[made.count] = np.array([at]), np.array([count])
            for output, keys in made.before.items():
                feed |= {name: sums[output].get(key, self._zeros[output]) for key, name in keys.items()}
            got = dict(zip(wanted, session.run(wanted, feed), strict=True))
            sums = {output: {key: got[name] for key, name in keys.items()} for output, keys in made.after.items()}
        return sums

    def whole(self, feeds: Mapping[str, Array], names: Sequence[str], step: Array) -> list[Array]:
        """Return the outputs ``names`` of one run of the whole model."""
        made: list[Array] = self._whole.run(list(names), {**feeds, self._step: step})
        return made


def _without_sizes(model: ir.Model) -> ir.Model:
    """Leave the sizes of inputs and outputs open where there is a LayerNormalization, in place.

    Where ONNX Runtime (1.32) knows them it joins Add and LayerNormalization into a node that takes longer than both: a
    third of the time of an encoder. Convolutions want to know theirs.
    """
    if any(node.op_type == "LayerNormalization" for node in model.graph):
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.shape is not None:
                value.shape = ir.Shape([None] * len(value.shape))
    return model


class _Tiles:
    """Boundary values of draws laid behind each other, kept from chunk to chunk."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._count, self._tiled = 1, rows.boundary

    def of(self, count: int) -> Mapping[str, Array]:
        if count != self._count:
            self._count, self._tiled = count, self._rows.tiled(count)
        return self._tiled


def _shape(rank: int) -> tuple[int, ...]:
    return () if rank == 0 else (-1,)
