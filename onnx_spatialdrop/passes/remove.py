"""Take spatial dropout out of a model for inference.

It removes SpatialDropout nodes only; what else a model holds of dropout, passes/fuse.py has to recognise first.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.gc_pause import gc_paused
from onnx_spatialdrop.graph import prune, replace, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.graph.true_masks import TrueMask
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes import direct
from onnx_spatialdrop.passes.opened import Opened

__all__ = ["RemovePass", "remove"]


class RemovePass(ir.passes.InPlacePass):
    """Remove every SpatialDropout node, as if training_mode were false for good.

    1. Y's users read X, and the node goes, where Y is no graph output, or X can take over Y's name.
    2. Elsewhere (Y is a graph output, and X an input, an initializer, another output or a value of an outer graph) the
       node becomes ``Identity``, under its name.
    3. A used mask becomes a tensor of True of the mask's shape.
    4. Inputs, initializers, function parameters and nodes that only fed training_mode or step go; see prune.py.
    5. The operator's functions and its domain's imports go.
    6. All other nodes, initializers, names and outputs stay as they are; a model without the node is not modified.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        sites = scopes.spatial_dropouts(model)
        if not sites:
            return ir.passes.PassResult(model, modified=False)  # case 6
        names = Names(model)
        control_inputs: dict[int, ir.Value] = {}
        for site in sites:
            control_inputs.update({id(value): value for value in site.node.inputs[1:] if value is not None})
            remove_node(site.node, names, site.opset)
        prune.prune_unused(model, control_inputs.values())  # case 4
        prune.drop_domain(model)  # case 5
        return ir.passes.PassResult(model, modified=True)


def remove_node(node: ir.Node, names: Names, opset: int = 18) -> None:
    """Remove one node of a graph of ``opset``, as RemovePass does, but for what fed it."""
    y, mask = node.outputs
    used = bool(mask.uses()) or mask.is_graph_output()
    # Attributes that refer to a function's own have no value here, and are needed for a used mask only.
    by_reference = any(attribute.is_ref() for attribute in node.attributes.values())
    axes = () if by_reference and not used else op.read(node).axes
    graph, x = node.graph, node.inputs[0]
    assert graph is not None
    assert x is not None
    if used:
        ones = TrueMask(axes, opset).nodes(x, names.prefix(f"{y.name}/ones"))  # case 3
        graph.insert_before(node, ones)
        replace.take_over(mask, ones[-1].outputs[0])
    if replace.splice(node, x):
        return  # case 1
    node.domain, node.op_type, node.version = "", "Identity", None  # case 2
    node.attributes.clear()
    node.resize_inputs(1)
    node.resize_outputs(1)


@io.same_kind
def remove(model: io.Source, output: io.PathLike | None = None) -> io.Result:
    """Return the inference model: no SpatialDropout node, and nothing left that only such nodes needed.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    source = io.checked_source(model)
    if isinstance(source, ir.Model):
        return io.apply(source, output, RemovePass())
    with gc_paused():
        opened = Opened(source, direct.WANTED)
        removed = direct.take_out(opened.survey, only_spatial=True)
        return opened.result(None if output is None else arguments.path(output, "output"), bool(removed))
