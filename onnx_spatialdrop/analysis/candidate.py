"""One draw of a graph, what was proven of it, and what the whole comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_spatialdrop.analysis.defined_bits import DefinedBits
from onnx_spatialdrop.analysis.prove import Proof
from onnx_spatialdrop.analysis.sources import Source
from onnx_spatialdrop.analysis.trace import Trace
from onnx_spatialdrop.graph import scopes

__all__ = ["Candidate", "verdict"]


@dataclass(frozen=True)
class Candidate:
    """One draw and what was proven of it.

    Attributes:
        trace: everything that the draw reaches.
        scope: the main graph or the function that holds it.
        proofs: one a product that the rest of the graph reads.
        kind: what the whole is.
        reason: why the whole is no dropout; "" where every product is one and the mask goes nowhere else.
        notes: what is wrong with the file here.
        training_mode: the value that switches the dropout on and off; None where it is always on.
        disjoint: no node of it is part of another draw's.
        bits: the seed and the step of what a generator draws that the file names, or why it draws none of ours; None
            where the generator is the runtime's own.
    """

    trace: Trace
    scope: scopes.Scope
    proofs: tuple[Proof, ...] = ()
    kind: str = "unknown"
    reason: str = ""
    notes: tuple[str, ...] = ()
    training_mode: ir.Value | None = None
    disjoint: bool = True
    bits: DefinedBits | str | None = None

    @property
    def source(self) -> Source:
        """The random node."""
        return self.trace.source

    def looked_through(self) -> Iterator[ir.Node]:
        """Yield the nodes between each mask and the X that was proven: scales before the mask, and views."""
        for proof in self.proofs:
            yield from proof.level.passed

    def scales(self) -> Iterator[ir.Node]:
        """Yield the nodes after the products, behind views and sums, whose constant factors are the masks' scales."""
        for proof in self.proofs:
            if proof.scaled_by is not None:
                yield proof.scaled_by[0]


def verdict(trace: Trace, proofs: Sequence[Proof]) -> tuple[str, str]:
    """Return what the whole is, and why it is no dropout."""
    bad = next((proof for proof in proofs if proof.reason), None)
    if trace.ends:
        end = trace.ends[0]
        kind = proofs[0].kind if proofs else "unknown"
        return kind, f"the mask is also used otherwise: {end.reason}" if proofs else end.reason
    if bad is not None:
        return bad.kind, bad.reason
    if not proofs:
        return "unknown", "nothing reads the draw"
    abstracts = [trace.products[proof.y] for proof in proofs]
    if len({bool(abstract.factor[0]) for abstract in abstracts}) > 1:
        return "unknown", "one draw makes a mask and its opposite, which one seed cannot tie"
    views = {trace.products[proof.y].layout.view for proof in proofs}
    if len(views) > 1:
        return "shared_mask", "one mask is used in two arrangements, which one seed cannot tie"
    return ("shared_mask" if len(proofs) > 1 else proofs[0].kind), ""
