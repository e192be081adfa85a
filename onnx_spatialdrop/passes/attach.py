"""Put the operator's function body into a model, or take it out. Nodes stay nodes: only what defines them changes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.graph.ir_version import raise_ir_version
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body

__all__ = ["AttachPass", "DetachPass", "attach", "detach", "renew"]


class AttachPass(ir.passes.InPlacePass):
    """Add the function ``onnx_spatialdrop::SpatialDropout`` (and its helper) to the model, so that any runtime runs it.

    1. Every SpatialDropout node is checked first; one that is wrong stops the pass before anything changes.
    2. The functions import the opset of the model; ONNX Runtime refuses others when kernels differ.
    3. A ``scale`` of 0 is written out where X's type is float16, bfloat16 or float32, since ONNX Runtime drops the
       rounding of a scale that a graph computes itself; the value is the one that 0 stands for.
    4. With a bfloat16 node in the model the functions compute in float32, as ONNX Runtime's CPU has no bfloat16 Mul or
       Where. A model that holds bfloat16 and double nodes is refused: there is one body, and it would round doubles.
    5. The function draws the dialects that the nodes name, and takes each node's own: there can be no more than one
       function of a name (under ``overload`` ONNX Runtime 1.23 and onnx's ReferenceEvaluator run the last one of the
       file for all nodes). The run fails where a node names a dialect that came later.
    6. Functions that are there already are replaced: bodies of an older version, for another opset, or that draw other
       dialects; their helpers go.
    7. They are written before the model's own functions, which may call them: onnx's ReferenceEvaluator reads
       functions in the order of the file.
    8. Without ``defaults`` the switches have to be fed, as expand does it.
    9. A model without SpatialDropout nodes is not modified.
    """

    def __init__(self, defaults: bool = True) -> None:
        super().__init__()
        self.defaults = arguments.flag(defaults, "defaults")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        sites = scopes.spatial_dropouts(model)
        if not sites:
            return ir.passes.PassResult(model, modified=False)  # case 9
        read = [op.read(site.node) for site in sites]  # case 1
        rngs = [rng for rng in spec.RNGS if any(each.rng == rng for each in read)]  # case 5
        opset = scopes.default_opset(model.graph, model)  # case 2
        functions = body.functions(
            opset,
            rngs,
            in_float=_needs_float([site.node for site in sites]),
            balanced=any(each.strata != 1 for each in read),
        )
        for site, attributes in zip(sites, read, strict=True):
            _write_scale(site.node, attributes)
        ours = {function.identifier(): function for function in functions}
        others = {key: function for key, function in model.functions.items() if not _is_own(function)}  # case 6
        model.functions.clear()
        model.functions.update(ours | others)  # case 7
        if not self.defaults:  # case 8
            controls.require(
                model.graph, [value for site in sites for value in site.node.inputs[1:] if value is not None]
            )
        model.opset_imports[spec.DOMAIN] = spec.VERSION
        raise_ir_version(model)
        return ir.passes.PassResult(model, modified=True)


class DetachPass(ir.passes.InPlacePass):
    """Take the operator's functions out of the model.

    1. The nodes stay, and so does the import of their domain; they need a registered kernel from then on.
    2. Functions of other domains, and the model without ours, are not touched.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        own = [key for key, function in model.functions.items() if _is_own(function)]
        for key in own:
            del model.functions[key]
        return ir.passes.PassResult(model, modified=bool(own))


def renew(model: ir.Model) -> None:
    """Attach again where the model has a body, in place: nodes that are new may need more of it.

    Raises:
        FormError: one body cannot serve all nodes; see AttachPass.
    """
    if (spec.DOMAIN, spec.OP_TYPE, "") in model.functions:
        AttachPass().call(model)


def _is_own(function: ir.Function) -> bool:
    return function.domain == spec.DOMAIN and function.name in body.OWN_FUNCTIONS


def _needs_float(nodes: list[ir.Node]) -> bool:
    types = {node.inputs[0].dtype: node for node in nodes if node.inputs[0] is not None}
    if ir.DataType.BFLOAT16 in types and ir.DataType.DOUBLE in types:  # case 4
        raise FormError(
            f"{op.describe(types[ir.DataType.BFLOAT16])} is bfloat16 and {op.describe(types[ir.DataType.DOUBLE])} is "
            "double, and one function body cannot serve both; register the native kernel, or expand with form='philox'"
        )
    return ir.DataType.BFLOAT16 in types


def _write_scale(node: ir.Node, attributes: spec.Attributes) -> None:
    dtype = op.numpy_dtype(node.inputs[0]) if node.inputs[0] is not None else None
    if attributes.scale == 0.0 and dtype is not None and dtype.itemsize <= 4:  # case 3
        scale = float(spec.kept_scale(attributes.ratio, 0.0, dtype))
        op.write(node, dataclasses.replace(attributes, scale=scale))


@io.same_kind
def attach(model: io.Source, output: io.PathLike | None = None, *, defaults: bool = True) -> io.Result:
    """Return the model with the operator's function body in it: one file that runs with and without a kernel.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        defaults: False: training_mode and step lose their defaults and have to be fed; onnxruntime-node and -web cannot
            feed an input that has one.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        FormError: the model's opset is below 15, or its nodes are of types that one body cannot serve.
        SpecError: a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    return io.apply(model, output, AttachPass(defaults))


@io.same_kind
def detach(model: io.Source, output: io.PathLike | None = None) -> io.Result:
    """Return the model without the operator's function body; it needs a registered kernel from then on.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        ModelFileError: a file that cannot be read or written.
    """
    return io.apply(model, output, DetachPass())
