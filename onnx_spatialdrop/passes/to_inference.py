"""Clean a training-mode export: whatever it holds of dropout goes, recognised first where it is spelled out.

It does what fuse.py can prove and no more: noise that is no dropout stays, and so do masks frozen into constants.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.analysis.sources import switched_off
from onnx_spatialdrop.graph import prune, replace, scopes
from onnx_spatialdrop.graph.constants import Constants
from onnx_spatialdrop.graph.tidy import tidy_views
from onnx_spatialdrop.graph.transposes import cancel_transposes
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.fuse.report import Report
from onnx_spatialdrop.passes.fuse.untagged import idle_products
from onnx_spatialdrop.passes.plain import plain_inference
from onnx_spatialdrop.passes.remove import RemovePass

__all__ = ["InferencePass", "file_to_inference", "to_inference"]


class InferencePass(ir.passes.InPlacePass):
    """Fuse, then remove; ``report`` is that of the fusion, ``removed`` counts the dropouts that went.

    1. Dropout of every kind that fuse recognises becomes SpatialDropout, also element-wise dropout, alpha dropout and
       ONNX Runtime's inverted Bernoulli: at inference all of them are the identity.
    2. Dropout nodes that are off go, where their mask is unused; so do draws of the operator's bits that are off.
    3. Every SpatialDropout node goes, with its switches; see remove.py.
    4. Views around a removed node that undo each other go too, or become one; see tidy.py and layouts.py.
    5. What was refused stays; ``report.refused`` says why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.report = Report()
        self.removed = 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        idle = _drop_idle(model)  # case 2
        fusion = FusePass(for_inference=True)  # cases 1 and 4
        modified = fusion.call(model).modified
        self.report = fusion.report
        self.removed = idle + len(scopes.spatial_dropouts(model))
        sites = scopes.spatial_dropouts(model)
        sources = [site.node.inputs[0] for site in sites if site.scope is model.graph]
        RemovePass().call(model)  # case 3
        around = [x for x in sources if x is not None]
        opset = scopes.default_opset(model.graph, model)
        tidy_views(model, around, opset)  # case 4
        tidy_views(model, cancel_transposes(model, around, opset), opset)
        return ir.passes.PassResult(model, modified=modified or self.removed > 0)


def _drop_idle(model: ir.Model) -> int:
    constants, dropped = Constants(), 0
    for scope in scopes.foreign_scopes(model):
        opset = scopes.default_opset(scope, model)
        for node in list(scope.all_nodes()):
            if node.op_type != "Dropout" or node.domain != "":
                continue
            if not node.inputs or node.inputs[0] is None:
                continue
            masked = any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:])
            if masked or not switched_off(node, opset, constants):
                continue
            dropped += 1
            replace.bypass(node, node.inputs[0])
    for product, source in idle_products(model):
        dropped += 1
        idle = [value for value in product.inputs if value is not source]
        replace.bypass(product, source)
        prune.prune_unused(model, idle)
    return dropped


@io.same_kind
def to_inference(model: io.Source, output: io.PathLike | None = None) -> io.Result:
    """Return the inference model of any export: no dropout that can be recognised, spelled out or as a node.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.

    Returns:
        The same kind of model as came in; from a path, an ir.Model. What could not be proven to be dropout is still in
        it; ``fuse(model)`` reports that.

    Raises:
        SpecError: a SpatialDropout node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    if output is not None and isinstance(model, (str, os.PathLike)) and file_to_inference(model, output) is not None:
        return Path(output)
    return io.apply(model, output, InferencePass())


def file_to_inference(path: io.PathLike, output: io.PathLike) -> int | None:
    """Write the inference model of a file in which plain.py can see all there is; it takes a fraction of the time.

    Returns:
        How many dropouts went; None where InferencePass has to do it, and nothing was written.

    Raises:
        ModelFileError: a file that cannot be read or written.
    """
    return io.rewrite_content(path, output, plain_inference)
