"""Make the inference model of any export: no dropout, and nothing in training mode.

It does what is known or can be proven, and names the rest. How nodes are switched off is in direct.py and
switch_off.py; what is proven is fuse's.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import TrainingLeftError, TrainingLeftWarning
from onnx_spatialdrop.gc_pause import gc_paused
from onnx_spatialdrop.graph import postcondition, prune, scopes
from onnx_spatialdrop.graph.ir_version import list_constants
from onnx_spatialdrop.graph.replace import bypass
from onnx_spatialdrop.graph.tidy import tidy_views
from onnx_spatialdrop.graph.transposes import cancel_transposes
from onnx_spatialdrop.passes import direct, leftovers
from onnx_spatialdrop.passes.equal_branches import merge_equal_branches
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.fuse.claims import rerun
from onnx_spatialdrop.passes.fuse.report import Report
from onnx_spatialdrop.passes.fuse.untagged import idle_products
from onnx_spatialdrop.passes.leftovers import Leftover
from onnx_spatialdrop.passes.opened import Opened
from onnx_spatialdrop.passes.switch_off import dropouts_off, normalize_by_statistics

__all__ = ["InferencePass", "Outcome", "run", "to_inference"]

M = TypeVar("M", onnx.ModelProto, ir.Model)

_LOG = logging.getLogger(__name__)


class InferencePass(ir.passes.InPlacePass):
    """Switch everything off; ``report`` is that of fuse, ``removed`` counts what went, ``left`` names what did not.

    1. Dropout nodes go, whatever their ratio, switch and mask; a mask that is read or returned becomes true, and
       ``left`` names it where what reads it is not proven to be part of dropout.
    2. Dropout of every kind that fuse recognises becomes SpatialDropout, also element-wise dropout, alpha dropout and
       ONNX Runtime's inverted Bernoulli: at inference all of them are the identity.
    3. Every SpatialDropout node goes with its switches, see remove.py; so do the operator's own draws that are off.
    4. Batch normalization normalizes by the statistics in the file, which are its running statistics, too.
    5. An If goes whose branches have become the same; see equal_branches.py.
    6. All that is repeated until nothing goes any more, so that a second run changes nothing.
    7. Views around a removed node that undo each other go too, or become one; see tidy.py and transposes.py.
    8. What was refused stays; ``report.refused`` and ``left`` say why.
    9. Outputs keep name, type and shape; inputs stay, but for switches that only removed nodes read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.report = Report()
        self.removed = 0
        self.masks: list[Leftover] = []
        self.left: list[Leftover] = []
        self.excluded: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        before, constants = postcondition.Interface.of(model), {*model.graph.initializers}
        self.report, self.removed, self.masks = Report(), 0, list[Leftover]()
        around: dict[ir.Value, None] = {}
        while went := self._round(model, around):  # case 6
            self.removed += went
        sources = [value for value in around if value.uses() or value.is_graph_output()]
        opset = scopes.default_opset(model.graph, model)
        tidy_views(model, sources, opset)  # case 7
        tidy_views(model, cancel_transposes(model, sources, opset), opset)
        list_constants(model, constants)
        self.left = self.masks + leftovers.leftovers(model, self.report.refused)  # case 8
        postcondition.check(model, before)  # case 9
        return ir.passes.PassResult(model, modified=self.removed > 0)

    def _round(self, model: ir.Model, around: dict[ir.Value, None]) -> int:
        """Switch off what can be seen now; return how many went, and add what they passed on to ``around``."""
        places = dropouts_off(model, all_of_them=False)  # cases 1 and 3
        idle = _drop_idle(model)
        fusion = FusePass(for_inference=True)
        fusion.excluded = self.excluded
        fusion.call(model)  # case 2
        self.report.fused += fusion.report.fused
        self.report.refused = fusion.report.refused
        self.masks += leftovers.unproven_masks(model, fusion.report.refused)
        places += dropouts_off(model, all_of_them=True)  # cases 1 and 3
        around.update((x, None) for graph, x in places if graph is model.graph)
        went = max(len(places), len(fusion.report.fused))  # of a scalar no node was made
        changed = went + idle + normalize_by_statistics(model)  # case 4
        return changed + merge_equal_branches(model, (graph for graph, _ in places))  # case 5


def _drop_idle(model: ir.Model) -> int:
    dropped = 0
    for product, source in idle_products(model):
        dropped += 1
        idle = [value for value in product.inputs if value is not source]
        bypass(product, source)
        prune.prune_unused(model, idle)
    return dropped


@dataclass(frozen=True)
class Outcome:
    """What came of to_inference.

    Attributes:
        model: the model in the kind that came in, or the path written.
        removed: how many dropouts and batch normalizations were switched off.
        left: what still draws or is in training mode.
    """

    model: io.Result
    removed: int
    left: list[Leftover]


def run(
    model: io.Source,
    output: io.PathLike | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Do what to_inference does, without warnings; ``progress`` is io.save's.

    Raises:
        TrainingLeftError: ``strict``, and something is left; nothing is written.
    """
    source = io.checked_source(model)
    written = None if output is None else arguments.path(output, "output")
    return _run(source, written, strict, progress)


@gc_paused()
def _run(
    source: Path | onnx.ModelProto | ir.Model,
    output: Path | None,
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> Outcome:
    opened = None if isinstance(source, ir.Model) else Opened(source, direct.WANTED)
    if opened is not None:
        removed = direct.take_out(opened.survey)
        if removed is not None:
            return Outcome(opened.result(output, removed > 0, progress), removed, [])
    return _generally(source, opened, output, strict, progress)


def _generally(
    source: Path | onnx.ModelProto | ir.Model,
    opened: Opened | None,
    output: Path | None,
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> Outcome:
    rewriter = InferencePass()

    def attempt() -> ir.Model:
        working = source.clone() if isinstance(source, ir.Model) else cast("Opened", opened).as_ir()
        rewriter.call(working)
        return working

    working = rerun(attempt, rewriter.excluded)
    found = leftovers.findings(rewriter.left)
    if strict and found:
        raise TrainingLeftError(_left(found))
    outcome = Outcome(output or working, rewriter.removed, rewriter.left)
    if opened is not None and not rewriter.removed:
        return replace(outcome, model=opened.result(output, is_changed=False, progress=progress))
    if output is not None:
        io.save(working, output, progress)
    elif isinstance(source, onnx.ModelProto):
        return replace(outcome, model=ir.to_proto(working))
    return outcome


def _left(found: list[Leftover]) -> str:
    count = "1 thing is" if len(found) == 1 else f"{len(found)} things are"
    return f"{count} still in training mode, or may be dropout: {leftovers.listed(found)}"


@overload
def to_inference(model: M, output: None = None, *, strict: bool = False) -> M: ...
@overload
def to_inference(model: io.PathLike, output: None = None, *, strict: bool = False) -> ir.Model: ...
@overload
def to_inference(model: io.Source, output: io.PathLike, *, strict: bool = False) -> Path: ...
def to_inference(model: Any, output: Any = None, *, strict: bool = False) -> Any:
    """Return the inference model of any export: no dropout that can be recognised, and nothing in training mode.

    Dropout goes whatever its ratio, switch and mask, spelled out or as a node; batch normalization normalizes by the
    statistics in the file; a second run changes nothing. A TrainingLeftWarning names what is still in training mode or
    may be dropout and could not be proven; ``explain(model)`` says what of it was not. Noise that is the model, as a
    variational autoencoder has it, stays without a warning; the log of onnx_spatialdrop names it.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        strict: raise where there would be a warning; then nothing is written.

    Returns:
        The same kind of model as came in; from a path, an ir.Model. A file in which nothing changes is written byte
        for byte.

    Raises:
        SpecError: a SpatialDropout node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
        TrainingLeftError: ``strict``, and something is left.
    """
    outcome = run(model, output, arguments.flag(strict, "strict"))
    found = leftovers.findings(outcome.left)
    for noise in outcome.left:
        if not noise.is_finding:
            _LOG.info("left in the model: %s", noise)
    if found:
        warnings.warn(_left(found), TrainingLeftWarning, stacklevel=2)
    return outcome.model
