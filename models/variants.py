"""The same trained network in the shapes that models come in: an If branch, a function used twice, external data.

Made from digits_torch.onnx alone, without a framework.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from onnx import helper

from onnx_spatialdrop import io
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.remove import remove

__all__ = ["build_external", "build_function", "build_if"]

_SOURCE: Final = "digits_torch.onnx"
_STAGE: Final = "Stage"
_OWN: Final = "digits"


def build_if(folder: Path) -> None:
    """Write digits_if: ``monte_carlo`` chooses between a branch with two SpatialDropout nodes and one without.

    The first node stays in the main graph; weights and switches are read from there by both branches.
    """
    proto = onnx.load(folder / _SOURCE)
    graph, bare = proto.graph, remove(proto).graph
    cut = 1 + next(i for i, node in enumerate(graph.node) if node.op_type == spec.OP_TYPE)
    head, shared, undropped = list(graph.node[:cut]), graph.node[cut - 1].output[0], graph.node[cut - 1].input[0]
    kept = {name for node in head for name in node.output} | {tensor.name for tensor in graph.initializer}
    sampling = _branch("sampling", list(graph.node[cut:]), list(graph.value_info), kept, {})
    tail = [node for node in bare.node if node.output[0] not in kept]
    plain = _branch("plain", tail, list(bare.value_info), kept, {undropped: shared})
    chosen = helper.make_node("If", ["monte_carlo"], ["logits"], "branch", then_branch=sampling, else_branch=plain)
    info = [value for value in graph.value_info if value.name in kept]
    condition = helper.make_tensor_value_info("monte_carlo", onnx.TensorProto.BOOL, [])
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*head, chosen])
    graph.value_info.extend(info)
    graph.input.insert(1, condition)
    io.save(proto, folder / "digits_if.onnx")


def _branch(
    name: str,
    nodes: list[onnx.NodeProto],
    info: list[onnx.ValueInfoProto],
    outer: set[str],
    renamed: dict[str, str],
) -> onnx.GraphProto:
    """Return a subgraph whose own values are called ``name/...``, so that no two values of the file share a name."""
    known = {value.name: value for value in info}
    renamed = renamed | {out: f"{name}/{out}" for node in nodes for out in node.output}
    branch = onnx.GraphProto(name=name)
    for node in nodes:
        copy = branch.node.add()
        copy.CopyFrom(node)
        copy.name = f"{name}/{node.name}"
        for names in (copy.input, copy.output):
            names[:] = [renamed.get(value, value) for value in names]
    for old, new in renamed.items():
        if old in known and old not in outer:
            value = branch.value_info.add()
            value.CopyFrom(known[old])
            value.name = new
    branch.output.append(helper.make_tensor_value_info(renamed["logits"], onnx.TensorProto.FLOAT, ["batch", 10]))
    return branch


def build_function(folder: Path) -> None:
    """Write digits_function: stages 1 and 3 are calls of one function, Conv -> Relu -> SpatialDropout.

    So one node, with one seed, runs at two places: entry for entry the two masks come from the same words.
    """
    model = io.load(folder / _SOURCE)
    drops = [node for node in model.graph if op.is_spatial_dropout(node)]
    function = _stage(drops[0], model)
    model.functions[function.identifier()] = function
    model.opset_imports[_OWN] = 1
    for number, drop in ((1, drops[0]), (3, drops[2])):
        relu = _producer(drop)
        conv = _producer(relu)
        call = ir.Node(
            _OWN,
            _STAGE,
            [*conv.inputs, *drop.inputs[1:]],
            outputs=[ir.Value(name=out.name, type=out.type, shape=out.shape) for out in drop.outputs],
            name=f"stage{number}",
        )
        model.graph.insert_before(conv, call)
        for old, new in zip(drop.outputs, call.outputs, strict=True):
            old.replace_all_uses_with(new)
        model.graph.remove([drop, relu, conv], safe=True)
    io.save(model, folder / "digits_function.onnx")


def _producer(node: ir.Node) -> ir.Node:
    source = node.inputs[0]
    assert source is not None
    producer = source.producer()
    assert producer is not None
    return producer


def _stage(drop: ir.Node, model: ir.Model) -> ir.Function:
    """Return ``digits::Stage(x, w, b, training_mode, step) -> (y, mask)``, a function with the settings of ``drop``."""
    relu = _producer(drop)
    conv = _producer(relu)
    x, w, b, training_mode, step = parameters = [
        ir.Value(name=name) for name in ("x", "w", "b", "training_mode", "step")
    ]
    inner_conv = ir.Node("", "Conv", [x, w, b], list(conv.attributes.values()), outputs=[ir.Value(name="conv")])
    inner_relu = ir.Node("", "Relu", inner_conv.outputs, outputs=[ir.Value(name="h")])
    outputs = [ir.Value(name="y"), ir.Value(name="mask")]
    attributes = list(drop.attributes.values())
    inner_drop = ir.Node(
        spec.DOMAIN, spec.OP_TYPE, [inner_relu.outputs[0], training_mode, step], attributes, outputs=outputs
    )
    for node, name in ((inner_conv, "conv"), (inner_relu, "relu"), (inner_drop, "drop")):
        node.name = name
    imports = {"": model.opset_imports[""], spec.DOMAIN: spec.VERSION}
    graph = ir.Graph(
        parameters, outputs, nodes=[inner_conv, inner_relu, inner_drop], opset_imports=imports, name=_STAGE
    )
    return ir.Function(_OWN, _STAGE, graph=graph, attributes=[])


def build_external(folder: Path) -> None:
    """Write digits_external: the same model with its weights in digits_external.onnx.data."""
    model = ir.load(folder / _SOURCE)
    path = folder / "digits_external.onnx"
    temporary = folder / "external.tmp"
    temporary.mkdir(exist_ok=True)
    data = f"{path.name}.data"
    ir.save(model, temporary / path.name, external_data=data)
    for name in (data, path.name):
        os.replace(temporary / name, folder / name)
    temporary.rmdir()
