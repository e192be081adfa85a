"""Find a model's dropouts, and let their insides out as graph outputs. Works on a copy that nobody else has."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes import known, layers, scopes, switches
from onnx_spatialdrop.passes.names import Names
from onnx_spatialdrop.passes.opset import InlineFunctionsPass
from onnx_spatialdrop.verify.framework import Layer

__all__ = ["Dropout", "ExposePass"]


@dataclass(frozen=True)
class Dropout:
    """One dropout of the model.

    Attributes:
        layer: what is known of it.
        x: its input.
        y: its result.
        mask: bool, True where kept.
        training_mode: what switches it; None where it is always on.
        step: which draw; None where it does not draw.
    """

    layer: Layer
    x: ir.Value
    y: ir.Value
    mask: ir.Value
    training_mode: ir.Value | None
    step: ir.Value | None


class ExposePass(ir.passes.InPlacePass):
    """Make X, Y and the mask of every dropout outputs of the model.

    1. Functions are written out where they are called, so that each call's mask can be seen.
    2. ``dropouts`` holds what was found, in the order of the file; ``outputs`` the names of the new outputs, three a
       dropout. X and Y come out as double, the mask as bool.
    3. A dropout inside If, Loop or Scan is refused: its mask cannot leave the subgraph.
    4. So is one that training_mode switches off for good, and a model without any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropouts: tuple[Dropout, ...] = ()
        self.outputs: tuple[tuple[str, str, str], ...] = ()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        InlineFunctionsPass().call(model)  # case 1
        self.dropouts = tuple(_nodes(model))
        if not self.dropouts:
            raise VerifyError(
                "the model holds no SpatialDropout node and no mask input, so there is nothing to compare; give the "
                "model that the exporter wrote with dropout='op', or fuse() it first"
            )
        for dropout in self.dropouts:
            _check(dropout, model)
        names = Names(model)
        self.outputs = tuple(_expose(model.graph, dropout, names) for dropout in self.dropouts)  # case 2
        return ir.passes.PassResult(model, modified=True)


def _nodes(model: ir.Model) -> list[Dropout]:
    sites = scopes.spatial_dropouts(model)
    found = []
    names = layers.layer_names(site.node for site in sites)
    for site, name, (kind, shape) in zip(sites, names, known.known_inputs(model, sites, shapes=True), strict=True):
        node, attributes = site.node, op.read(site.node)
        x, training_mode, step = node.inputs
        assert x is not None
        dtype = None if kind is None else op.FLOAT_TYPES.get(kind.dtype)
        layer = Layer(
            name=name,
            node=node.name or "",
            axes=attributes.axes,
            rank=None if shape is None else len(shape),
            ratio=attributes.ratio,
            scale=attributes.scale,
            seed=attributes.seed,
            rng=attributes.rng,
            dtype=None if dtype is None else next(key for key, known in spec.DTYPES.items() if known == dtype),
        )
        found.append(Dropout(layer, x, node.outputs[0], node.outputs[1], training_mode, step))
    return found


def _check(dropout: Dropout, model: ir.Model) -> None:
    where, producer = f"layer {dropout.layer.name!r}", dropout.y.producer()
    if producer is None or producer.graph is not model.graph:  # case 3
        raise VerifyError(
            f"{where}: stands inside an If, Loop or Scan, which does not let its mask out; "
            "export the model without control flow around it"
        )
    training = switches.constant_of(dropout.training_mode)
    if training is not None and not training.all():  # case 4
        raise VerifyError(f"{where}: its training_mode is constantly false, so it never drops; export it with a switch")


def _expose(graph: ir.Graph, dropout: Dropout, names: Names) -> tuple[str, str, str]:
    outputs = []
    for role, value in (("x", dropout.x), ("y", dropout.y), ("mask", dropout.mask)):
        dtype = ir.DataType.BOOL if role == "mask" else ir.DataType.DOUBLE
        name = names.prefix(f"{dropout.y.name}/verify_{role}")
        shape = None if value.shape is None else ir.Shape([None] * len(value.shape))
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
        graph.append(ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype)], outputs=[output], name=name))
        graph.outputs.append(output)
        outputs.append(name)
    return outputs[0], outputs[1], outputs[2]
