"""Balance the draws of SpatialDropout nodes over cycles of steps, for means of many; only an attribute changes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec, stratified
from onnx_spatialdrop.passes import attach

__all__ = ["StratifyPass", "stratify"]


class StratifyPass(ir.passes.InPlacePass):
    """Write the attribute ``strata`` to SpatialDropout nodes.

    1. Nodes that draw as a framework does (``rng`` other than "philox") are left alone, and counted in ``kept``: each
       of their draws is their layer's.
    2. A function body that the model has is attached anew, so that it balances its draws, too.
    3. A node whose ``strata`` is right already is not touched; where all are, the model is not modified.
    """

    def __init__(self, strata: int = 31) -> None:
        super().__init__()
        self.strata = arguments.integer(strata, "strata")
        if self.strata not in stratified.STRATA:
            raise SpecError(f"strata is {self.strata}; it must be 1 or a prime number from 3 to 127")
        self.kept = 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        read = [(site.node, op.read(site.node)) for site in scopes.spatial_dropouts(model)]
        own = [(node, each) for node, each in read if each.rng == spec.RNGS[0]]
        self.kept = len(read) - len(own)  # case 1
        new = [
            (node, dataclasses.replace(each, strata=self.strata)) for node, each in own if each.strata != self.strata
        ]
        for node, each in new:
            op.write(node, each)
        if new:
            attach.renew(model)  # case 2
        return ir.passes.PassResult(model, modified=bool(new))  # case 3


@io.same_kind
def stratify(model: io.Source, output: io.PathLike | None = None, *, strata: int = 31) -> io.Result:
    """Return the model with draws that are balanced over every ``strata`` steps, so that means need fewer of them.

    Each mask entry is then dropped equally often in steps 0 to ``strata`` - 1, and so on; a single draw is what it was
    before. Take the mean over a whole number of such cycles. Nodes that draw as a framework does stay as they are.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        strata: a prime number from 3 to 127, or 1 for independent draws.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: a ``strata`` outside those, or a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    return io.apply(model, output, StratifyPass(strata))
