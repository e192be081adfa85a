"""Take a model apart where its draws begin, for people who run the halves themselves, and say what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.montecarlo import cost, parts
from onnx_spatialdrop.montecarlo.batches import prepared_plan
from onnx_spatialdrop.montecarlo.options import Layers, layers_of
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.operator import node as op

__all__ = ["Split", "SplitReport", "report_of", "split"]


@dataclass(frozen=True)
class SplitReport:
    """What a cut found.

    Attributes:
        live: names of the dropout nodes that draw, in the order of the file.
        prefix_nodes: how many nodes run once.
        suffix_nodes: how many run for each draw.
        boundary: the values that cross, by name.
        share: the part of the operations of one run that runs once, 0 to 1, estimated from sizes.
        proven: whether draws may be laid behind each other in the batch.
        ends: where that proof ends, and why; "" where it is whole.
        whole_batch: names of the live nodes that are not known to take a step a sample.
        notes: what was assumed, one line each.
    """

    live: tuple[str, ...]
    prefix_nodes: int
    suffix_nodes: int
    boundary: tuple[str, ...]
    share: float
    proven: bool
    ends: str
    whole_batch: tuple[str, ...]
    notes: tuple[str, ...]

    def speed_up(self, samples: int = 31) -> float:
        """Return how many times faster ``samples`` draws can get at most: T (P + S) / (P + T S)."""
        return samples / (self.share + samples * (1 - self.share))

    def as_dict(self) -> dict[str, Any]:
        """Return the report in types that JSON has."""
        found = {key: list(value) if isinstance(value, tuple) else value for key, value in self.__dict__.items()}
        return found | {"speed_up_31": self.speed_up()}

    def __str__(self) -> str:
        lines = [
            f"live dropout: {', '.join(self.live)}",
            f"runs once: {self.prefix_nodes} nodes, {self.share:.1%} of the work; each draw: {self.suffix_nodes} nodes",
            f"31 draws can get {self.speed_up():.1f} x faster; they cross at {', '.join(self.boundary) or 'nothing'}",
            f"draws run at once: {'proven' if self.proven else f'no, at {self.ends}'}",
        ]
        if self.whole_batch:
            lines.append(f"not known to take a step a sample: {', '.join(self.whole_batch)}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class Split(NamedTuple):
    """Two models, and what the cut found.

    Attributes:
        prefix: the inputs to the values that cross, and to outputs that no draw touches. It may have no outputs.
        suffix: the values that cross and ``step`` (int64 [N] or [1]) to the other outputs. Its dropout is always on.
        report: what the cut found.
    """

    prefix: Any
    suffix: Any
    report: SplitReport

    def __repr__(self) -> str:
        """The report alone: a model fills screens."""
        return f"Split(\n{self.report}\n)"


def report_of(plan: Plan) -> SplitReport:
    """Return what a cut found."""
    once = sum(cost.operations(node, plan.facts, {}) for node in plan.prefix)
    each = sum(cost.operations(node, plan.facts, {}) for node in plan.suffix)

    def name(node: ir.Node) -> str:
        return node.name or op.describe(node)

    return SplitReport(
        live=tuple(name(node) for node in plan.prepared.live),
        prefix_nodes=len(plan.prefix),
        suffix_nodes=len(plan.suffix),
        boundary=tuple(value.name or "" for value in plan.boundary),
        share=once / max(1, once + each),
        proven=plan.proven,
        ends=plan.ends,
        whole_batch=tuple(name(node) for node in plan.prepared.live if node not in plan.per_sample),
        notes=tuple(plan.prepared.notes),
    )


def split(model: io.Source, *, layers: Layers = "all") -> Split:
    """Cut a model where its dropout begins: what is the same for every draw, and what follows from a draw.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model, with nodes or exported in training mode; it is not changed.
        layers: "all", "last", or the names of the nodes (or of their outputs) whose dropout is on; the others go.

    Returns:
        Prefix and suffix in the kind of model that came in (from a path, ir.Model), and the report.

    Raises:
        SpecError: no dropout is live, or ``layers`` names a node that is not there.
        ModelFileError: a file that cannot be read.
    """
    chosen = layers_of(layers)
    halves: list[ir.Model] = []
    reports: list[SplitReport] = []

    def cut(working: ir.Model) -> None:
        plan = prepared_plan(working, chosen)
        reports.append(report_of(plan))
        halves.append(parts.prefix_model(plan))
        halves.append(parts.suffix_model(plan))

    io.rewrite(model, None, cut)
    prefix, suffix = (ir.to_proto(half) if isinstance(model, onnx.ModelProto) else half for half in halves)
    return Split(prefix, suffix, reports[0])
