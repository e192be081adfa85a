"""Find a model's dropouts, and let their insides out as graph outputs. Works on a copy that nobody else has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.graph import controls, layers, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse.tagged import ExpandedRegion, tagged_regions
from onnx_spatialdrop.passes.opset import InlineFunctionsPass
from onnx_spatialdrop.verify.framework import Layer

__all__ = ["Dropout", "ExposePass", "Exposed", "expose"]


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
        untagged = [value.name for value in model.graph.inputs if (value.name or "").endswith(".mask")]
        if not self.dropouts and untagged:
            raise VerifyError(
                f"the nodes behind {untagged[0]!r} have lost the tags that say which layer they are, which optimisers "
                "strip; give the model as it was before, and compare the optimised one's outputs with that one's"
            )
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
    """Return the SpatialDropout nodes, and the groups of nodes that stand for one with its mask as an input."""
    sites = scopes.spatial_dropouts(model)
    groups = [group for group in tagged_regions(model) if group.mask_input is not None]
    names = layers.layer_names([*(site.node for site in sites), *map(_carrier, groups)])
    facts = input_types.known_inputs(model, sites)
    found = [
        Dropout(_layer(name, site.node.name, op.read(site.node), *fact), *_ends(site.node))
        for name, site, fact in zip(names, sites, facts, strict=False)
    ]
    for name, group in zip(names[len(sites) :], groups, strict=True):
        layer = _layer(name, group.name, group.attributes, group.x.type, group.x.shape)
        dims = _dims(group.mask_input)
        rank = len(dims) if layer.rank is None and dims is not None else layer.rank
        layer = replace(layer, rank=rank, mask_input=_name(group.mask_input), mask_dims=dims)
        found.append(Dropout(layer, group.x, group.y, _applied(model.graph, group), group.training_mode, None))
    return found


def _ends(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value | None, ir.Value | None]:
    x, training_mode, step = node.inputs
    assert x is not None
    return x, node.outputs[0], node.outputs[1], training_mode, step


def _layer(
    name: str, node: str | None, attributes: spec.Attributes, kind: ir.TypeProtocol | None, shape: ir.Shape | None
) -> Layer:
    dtype = None if kind is None else op.FLOAT_TYPES.get(kind.dtype)
    return Layer(
        name=name,
        node=node or "",
        axes=attributes.axes,
        rank=None if shape is None else len(shape),
        ratio=attributes.ratio,
        scale=attributes.scale,
        seed=attributes.seed,
        rng=attributes.rng,
        dtype=None if dtype is None else next(key for key, held in spec.DTYPES.items() if held == dtype),
    )


def _carrier(group: ExpandedRegion) -> ir.Node:
    """Return a node that is called as the one that the group stands for."""
    output = ir.Value(name=group.y.name)
    return ir.Node("", "Carrier", [], outputs=[output], name=group.name, metadata_props=group.metadata)


def _name(value: ir.Value | None) -> str | None:
    return None if value is None else value.name


def _dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def _applied(graph: ir.Graph, group: ExpandedRegion) -> ir.Value:
    """Return the mask that the group applies, whatever its input holds: the opposite of what its last Where asks."""
    node = group.y.producer()
    while node is not None and node.op_type == "Cast":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.op_type != "Where":
        raise VerifyError(f"node {group.name!r}: its mask input is applied in another way than expand writes it")
    opposite = ir.node("Not", [node.inputs[0]], name=f"{group.y.name}/verify_kept")
    opposite.outputs[0].name = opposite.name
    graph.append(opposite)
    return opposite.outputs[0]


def _check(dropout: Dropout, model: ir.Model) -> None:
    where, producer = f"layer {dropout.layer.name!r}", dropout.y.producer()
    if producer is None or producer.graph is not model.graph:  # case 3
        raise VerifyError(
            f"{where}: stands inside an If, Loop or Scan, which does not let its mask out; "
            "export the model without control flow around it"
        )
    training = controls.constant_of(dropout.training_mode)
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


@dataclass(frozen=True)
class Exposed:
    """A model whose dropouts can be seen at work.

    Attributes:
        model: a copy with more outputs.
        layers: its dropouts, in the order of the file.
        seen: for each of them the names of the outputs that are X, Y and the mask.
        inputs: the names of the model's inputs, but for switches, masks and those with a default.
        outputs: the names of the model's own outputs.
        control_inputs: what to feed to the inputs that switch dropout on; ``step``, int64, stands there with a 0.
    """

    model: ir.Model
    layers: tuple[Layer, ...]
    seen: tuple[tuple[str, str, str], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    control_inputs: dict[str, npt.NDArray[Any]]


def expose(model: io.Source) -> Exposed:
    """Return a model's dropouts in view; the model stays as it is.

    Raises:
        VerifyError: a model without dropout, or one whose masks cannot be seen; see ExposePass.
        ModelFileError: a file that cannot be read.
    """
    exposing = ExposePass()
    result, (outputs, control_inputs) = io.rewrite(model, None, lambda working: _exposed(working, exposing))
    exposed = ir.from_proto(result) if isinstance(result, onnx.ModelProto) else result
    assert isinstance(exposed, ir.Model)
    layers = tuple(dropout.layer for dropout in exposing.dropouts)
    fed = {*control_inputs, *(layer.mask_input for layer in layers)}
    inputs = [value.name or "" for value in exposed.graph.inputs if value.const_value is None]
    return Exposed(
        exposed, layers, exposing.outputs, tuple(name for name in inputs if name not in fed), outputs, control_inputs
    )


def _exposed(model: ir.Model, exposing: ExposePass) -> tuple[tuple[str, ...], dict[str, npt.NDArray[Any]]]:
    outputs = tuple(value.name or "" for value in model.graph.outputs)
    exposing.call(model)
    control_inputs: dict[str, npt.NDArray[Any]] = {}
    for value in controls.behind(value for d in exposing.dropouts for value in (d.training_mode, d.step)):
        if value.graph is model.graph:
            is_step = value.dtype == ir.DataType.INT64
            rank = 0 if value.shape is None else len(value.shape)
            control_inputs[value.name or ""] = np.zeros((1,), np.int64) if is_step else np.ones((1,) * rank, np.bool_)
    return outputs, control_inputs
