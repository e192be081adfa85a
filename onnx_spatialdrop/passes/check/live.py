"""Findings about draws that nothing switches off: dropout that every run of the file draws. It reads, and proves."""

from __future__ import annotations

from collections import defaultdict

import onnx_ir as ir

from onnx_spatialdrop.analysis.candidate import Candidate
from onnx_spatialdrop.analysis.recognise import recognise
from onnx_spatialdrop.graph.build import NODE_KEY
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.check.finding import Finding
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY

__all__ = ["live_dropout"]

_FIX = "to_inference(model) takes it out; fuse(model) makes nodes of it, which have a switch"


def live_dropout(model: ir.Model) -> list[Finding]:
    """Return a finding for dropout that is always on, and one for each reason why a mask is not proven to be dropout.

    Noise that masks nothing, such as a variational autoencoder's, is the model, and no finding. Nor is what expand
    wrote, which does what its node did, or a draw that a value switches on and off.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for candidate in recognise(model):
        if _is_live(candidate):
            node = candidate.source.node
            found[_said(candidate)].append(node.name or op.describe(node))
    return [Finding("live-dropout", tuple(names), message, fix) for (message, fix), names in found.items()]


def _is_live(candidate: Candidate) -> bool:
    """Return whether every run draws a mask and multiplies something by it."""
    written_by_us = bool({NODE_KEY, GENERATOR_KEY} & candidate.source.node.metadata_props.keys())
    return bool(candidate.proofs) and candidate.training_mode is None and not candidate.source.off and not written_by_us


def _said(candidate: Candidate) -> tuple[str, str]:
    if not candidate.reason:
        return "dropout that nothing switches off: every run drops something else", _FIX
    return (
        f"masks something in every run, and is not proven to be dropout: {candidate.reason}",
        "mend the export; explain(model) says what was proven and what was not",
    )
