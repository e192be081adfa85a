"""Turn every dropout that a model spells out in standard ops into a SpatialDropout node.

What is dropout, analysis/ proves, and rewriter.py replaces it; this file decides which of it is to become a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.analysis.candidate import Candidate
from onnx_spatialdrop.analysis.defined_bits import DefinedBits
from onnx_spatialdrop.analysis.prove import no_node_of
from onnx_spatialdrop.analysis.recognise import recognise
from onnx_spatialdrop.errors import PostconditionError
from onnx_spatialdrop.graph import postcondition, scopes
from onnx_spatialdrop.graph.ir_version import raise_ir_version
from onnx_spatialdrop.graph.postcondition import Interface
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes import attach, seeds
from onnx_spatialdrop.passes.fuse.claims import Claims, key_of, rerun
from onnx_spatialdrop.passes.fuse.frozen import frozen_masks
from onnx_spatialdrop.passes.fuse.records import left_record, refused_record
from onnx_spatialdrop.passes.fuse.report import Record, Report
from onnx_spatialdrop.passes.fuse.rewriter import Rewriter
from onnx_spatialdrop.passes.fuse.tagged import ExpandedRegion, tagged_regions
from onnx_spatialdrop.passes.fuse.untagged import untagged_regions

__all__ = ["FusePass", "explain", "fuse", "run"]


class FusePass(ir.passes.InPlacePass):
    """Replace dropout in standard ops by SpatialDropout nodes; ``report`` says what was done and what was not.

    1. A draw whose every use ends in x * mask, with values 0 and 1/(1-ratio) and a mask that repeats along axes of x,
       becomes one SpatialDropout node a product. The nodes that only it needed go; nothing else does.
    2. The node stands at the product, under its output's name. ``training_mode`` and ``step`` are the model's
       switches, made here if need be, by default on (the file drew before, so it draws now); in a function they are
       constants. A Dropout node that a value switches on and off keeps that value.
    3. Seeds are derived from ``seed``, one a draw. Several products of one mask share its seed, and so their masks.
       RandomUniform and RandomUniformLike with generator "philox4x32_10" (onnx/onnx #8161) draw the operator's bits
       where a comparison alone cuts them: then seed and step are theirs. Elsewhere that generator is left alone.
    4. One entry an element (element-wise dropout) is left alone unless ``elementwise``; then axes is [].
    5. Left alone, with a reason: a mask that is used otherwise or returned; other values than 0 and 1/(1-ratio); noise
       that no threshold cuts; alpha dropout; Dropout nodes that are off; masks frozen into constants; and, unless
       ``bernoulli``, the operator Bernoulli, which ONNX Runtime inverts, so that as the file runs it is no dropout.
    6. With ``for_inference``, for to_inference only: alpha dropout and Bernoulli become nodes too (all of them mean x
       at inference), and a pair of views around a node, each undoing the other, goes as well.
    7. What expand wrote becomes the node that it was, seed and all, as long as its tags are there. Where a tool has
       stripped them, a form that draws the operator's bits is run and compared with the definition, and becomes that
       node too; other forms are recognised by what they compute, as cases 1 to 5 say.
    8. A model without any draw is not modified.
    9. A function that holds dropout and is called several times is written out at its calls first: each call draws
       for itself, and so needs a seed of its own. So is one that a mask is passed into, or that lacks the shapes which
       its calls have, if more is dropout then.
    10. Afterwards no node of what became a node is left, and the model's inputs and outputs are what they were, but for
       switches. If that did not hold, a PostconditionError would say so and ``excluded`` name the culprits, which a
       second run leaves alone; fuse and to_inference run again by themselves.
    11. What is refused is looked at again where other nodes were made, until nothing more can be proven.
    """

    def __init__(
        self,
        *,
        elementwise: bool = False,
        bernoulli: bool = False,
        training_mode: bool = True,
        seed: int = 0,
        for_inference: bool = False,
    ) -> None:
        super().__init__()
        self.elementwise = arguments.flag(elementwise, "elementwise") or for_inference
        self.bernoulli = arguments.flag(bernoulli, "bernoulli") or for_inference
        self.training_mode = arguments.flag(training_mode, "training_mode")
        self.seed = arguments.seed(seed, "seed")
        self.for_inference = for_inference
        self.excluded: dict[str, str] = {}
        self.report = Report()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        before, claims = Interface.of(model), Claims()
        self.report = Report(refused=frozen_masks(model))
        rewriter = Rewriter(model, self.training_mode, self.for_inference)
        self._undo(tagged_regions(model), rewriter, claims)  # case 7
        untagged, unproven = untagged_regions(model)
        self._undo(untagged, rewriter, claims)  # case 7
        self.report.refused += unproven
        refused, again = self._round(model, rewriter, claims)
        while again:  # case 11
            refused, again = self._round(model, rewriter, claims)
        self.report.refused += refused
        if self.report.fused:
            attach.renew(model)
        try:
            postcondition.check(model, before, claims.owners)  # case 10
        except PostconditionError as error:
            self.excluded.update(dict.fromkeys(claims.of(error.node), error.found))
            raise
        if self.report.fused and not self.for_inference:
            raise_ir_version(model)
        return ir.passes.PassResult(model, modified=bool(self.report.fused))

    def _round(self, model: ir.Model, rewriter: Rewriter, claims: Claims) -> tuple[list[Record], bool]:
        """Make nodes of what can be proven now; return what is refused, and whether more may be proven by that."""
        candidates = recognise(model)
        if self._write_out_calls(model, candidates):  # case 9
            candidates = recognise(model)
        reasons = self._reasons(candidates)  # cases 4 and 5
        taken = [candidate for candidate, reason in zip(candidates, reasons, strict=True) if not reason]
        for candidate, seed in zip(taken, self._seeds(model, taken), strict=True):
            claims.add(key_of(candidate.source.node), candidate.trace.nodes)
            self.report.fused += rewriter.rewrite(candidate, seed)
        rewriter.finish()
        refused = [
            refused_record(candidate, reason) for candidate, reason in zip(candidates, reasons, strict=True) if reason
        ]
        return refused, bool(taken and refused)

    def _seeds(self, model: ir.Model, candidates: list[Candidate]) -> list[int]:
        """Return a seed for each candidate: its own where its bits are defined, else one of nobody's (case 3)."""
        given = [each.bits.seed if isinstance(each.bits, DefinedBits) else None for each in candidates]
        present = {op.read(site.node).seed for site in scopes.spatial_dropouts(model)}
        present.update(seed for seed in given if seed is not None)
        derived = iter(seeds.derive_seeds(self.seed, given.count(None), frozenset(present)))
        return [next(derived) if seed is None else seed for seed in given]

    def _undo(self, regions: Iterable[ExpandedRegion], rewriter: Rewriter, claims: Claims) -> None:
        for region in regions:
            key = region.y.name or ""
            if key in self.excluded:
                self.report.refused.append(left_record(region, self.excluded[key]))
                continue
            claims.add(key, region.own_nodes())
            self.report.fused.append(rewriter.undo(region))
        rewriter.finish()  # what the forms leave behind is nobody's draw

    def _write_out_calls(self, model: ir.Model, candidates: list[Candidate]) -> bool:
        """Inline functions of several calls that hold dropout, and such as masks or shapes pass into; say if any."""
        if not model.functions:
            return False
        held = {id(candidate.scope) for candidate in candidates if not self._reason(candidate)}
        calls = Counter(node.op_identifier() for node in scopes.all_nodes(model))
        several = {key for key, function in model.functions.items() if id(function) in held and calls[key] > 1}
        ends = (end.node for candidate in candidates for end in candidate.trace.ends if end.node is not None)
        passed = {node.op_identifier() for node in ends} & set(model.functions)
        left = {id(candidate.scope) for candidate in candidates if self._reason(candidate)}
        passed |= {key for key, function in model.functions.items() if id(function) in left}
        if passed:
            trial = model.clone()
            _inline(trial, several | passed)
            if sum(not self._reason(c) for c in recognise(trial)) > sum(not self._reason(c) for c in candidates):
                several |= passed
        if several:
            _inline(model, several)
        return bool(several)

    def _reasons(self, candidates: list[Candidate]) -> list[str]:
        """Return why candidates are left alone; where one is, so is every other that it shares a scale with."""
        reasons = [self._reason(candidate) for candidate in candidates]
        while True:
            staying = {scale for c, reason in zip(candidates, reasons, strict=True) if reason for scale in c.scales()}
            tied = [
                not reason and not staying.isdisjoint(c.scales()) for c, reason in zip(candidates, reasons, strict=True)
            ]
            if not any(tied):
                return reasons
            reasons = [_ONE_SCALE if is_tied else reason for is_tied, reason in zip(tied, reasons, strict=True)]

    def _reason(self, candidate: Candidate) -> str:
        """Return why a candidate is left alone; "" where it becomes a node."""
        excluded = key_of(candidate.source.node) in self.excluded
        if self.for_inference and candidate.disjoint and not excluded and _goes_at_inference(candidate):
            return ""
        if candidate.reason:
            return candidate.reason
        if key_of(candidate.source.node) in self.excluded:
            return self.excluded[key_of(candidate.source.node)]
        if candidate.source.by_definition and not self.bernoulli:
            return f"{candidate.source.notes[0]}; by ONNX's definition this is dropout, and becomes a node on request"
        if isinstance(candidate.bits, str) and not self.for_inference:
            return f"{candidate.bits}; its masks are not the operator's"
        if not self.elementwise and all(proof.axes == () for proof in candidate.proofs):
            return "element-wise dropout; it becomes SpatialDropout with axes [] only on request"
        return ""


_ONE_SCALE: Final = "its scale is also that of a dropout that stays as it is"


def _inline(model: ir.Model, functions: set[ir.OperatorIdentifier]) -> None:
    ir.passes.common.InlinePass(criteria=lambda function: function.identifier() in functions)(model)


def _goes_at_inference(candidate: Candidate) -> bool:
    """Return whether a candidate is x at inference, though no SpatialDropout node could stand for it."""
    return _is_alpha(candidate) or _is_idle(candidate) or _has_no_rank(candidate)


def _has_no_rank(candidate: Candidate) -> bool:
    """Return whether every product is dropout but for the rank of x, and the mask goes nowhere else."""
    proofs = candidate.proofs
    fine = bool(proofs) and all(p.rank is not None and p.reason == no_node_of(p.rank) for p in proofs)
    return fine and not candidate.trace.ends


def _is_idle(candidate: Candidate) -> bool:
    """Return whether every product is what it was made of."""
    return not candidate.trace.ends and bool(candidate.proofs) and all(proof.idle for proof in candidate.proofs)


def _is_alpha(candidate: Candidate) -> bool:
    """Return whether every product is alpha dropout of known axes, and the mask goes nowhere else."""
    kinds = ("alpha", "feature_alpha")
    known = bool(candidate.proofs) and all(p.kind in kinds and p.axes is not None for p in candidate.proofs)
    return known and not candidate.trace.ends


def run(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    elementwise: bool = False,
    bernoulli: bool = False,
    training_mode: bool = True,
    seed: int = 0,
) -> tuple[io.Result, Report]:
    """Do what fuse does, and return its report, too."""
    rewriter = FusePass(elementwise=elementwise, bernoulli=bernoulli, training_mode=training_mode, seed=seed)
    result, _ = rerun(lambda: io.rewrite(model, output, rewriter.call), rewriter.excluded)
    return result, rewriter.report


@io.same_kind
def fuse(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    elementwise: bool = False,
    bernoulli: bool = False,
    training_mode: bool = True,
    seed: int = 0,
) -> io.Result:
    """Return the model with SpatialDropout nodes for the dropout that it spells out in standard operators.

    What may be dropout and was not proven stays as it is; ``explain(model)`` says why.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        elementwise: turn element-wise dropout into nodes with axes [] too; otherwise it stays.
        bernoulli: turn masks of the operator Bernoulli into nodes too, by ONNX's definition. ONNX Runtime keeps what
            Bernoulli should drop, so there the model's results change, for the better.
        training_mode: default of the model's switch, made where there is none. True keeps what the file does: it draws.
        seed: base seed, in [-2**63, 2**64); each draw gets one of its own derived from it.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: a SpatialDropout node, or a seed, that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    return run(model, output, elementwise=elementwise, bernoulli=bernoulli, training_mode=training_mode, seed=seed)[0]


def explain(model: io.Source, *, elementwise: bool = False, bernoulli: bool = False) -> Report:
    """Say what fuse does to a model: what of its dropout was proven, what was not, and why.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        elementwise: as fuse takes it.
        bernoulli: as fuse takes it.

    Returns:
        A record for each SpatialDropout node that fuse makes, and for each candidate that it leaves as it is.

    Raises:
        SpecError: a SpatialDropout node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read.
    """
    return run(model, elementwise=elementwise, bernoulli=bernoulli)[1]
