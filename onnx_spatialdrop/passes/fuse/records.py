"""What a report says of what fuse leaves alone."""

from __future__ import annotations

from onnx_spatialdrop.analysis.candidate import Candidate
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.fuse.report import Record
from onnx_spatialdrop.passes.fuse.rewriter import names
from onnx_spatialdrop.passes.fuse.tagged import ExpandedRegion

__all__ = ["left_record", "refused_record"]


def refused_record(candidate: Candidate, reason: str) -> Record:
    """Return what a report says of a candidate that is left alone."""
    node, proof = candidate.source.node, candidate.proofs[0] if candidate.proofs else None
    return Record(
        name=node.name or op.describe(node),
        kind=candidate.kind,
        nodes=names(candidate.trace.nodes),
        axes=_inactive_axes(candidate) if proof is None else proof.axes,
        ratio=candidate.source.ratio if proof is None else proof.ratio,
        scale=None if proof is None else proof.scale,
        rank=None if proof is None else proof.rank,
        proven=() if proof is None else proof.facts,
        reason=reason,
        notes=candidate.notes,
    )


def left_record(region: ExpandedRegion, reason: str) -> Record:
    """Return what a report says of a form of ours that is left as it is."""
    return Record(
        name=region.name, kind="unknown", nodes=names(region.nodes), axes=region.attributes.axes, reason=reason
    )


def _inactive_axes(candidate: Candidate) -> tuple[int, ...] | None:
    return () if candidate.kind == "elementwise" else None
