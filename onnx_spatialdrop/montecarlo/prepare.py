"""Make a model draw: dropout of every spelling becomes nodes that are on, and all of them follow one input ``step``.

It decides which dropout is live and nothing about how often it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph import controls, prune, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.montecarlo.options import Layers
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.attach import DetachPass
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.opset import OpsetPass
from onnx_spatialdrop.passes.remove import remove_node
from onnx_spatialdrop.passes.seeds import SeedsPass
from onnx_spatialdrop.passes.stratify import StratifyPass

__all__ = ["FIRST_OPSET", "STEP", "Prepared", "is_stochastic_source", "made_nodes", "nothing_live", "prepare"]

STEP: Final = "step"
#: The first opset that has all that the nodes of draws and statistics need.
FIRST_OPSET: Final = 13
#: What names begin with that a file sums up its own draws by (see onefile.py).
_SUMMED: Final = "monte_carlo/"
#: How far apart the streams of nodes are that share a seed and are told apart by negative steps alone.
_STREAM: Final = 1 << 20


@dataclass(frozen=True)
class Prepared:
    """A model whose dropout is on.

    Attributes:
        model: its only switch is ``step``, an input without a default: int64, one a sample.
        step: that input.
        live: the SpatialDropout nodes that draw, in the order of the file.
        notes: what was assumed, one line each.
    """

    model: ir.Model
    step: ir.Value
    live: list[ir.Node]
    notes: list[str] = field(default_factory=list)


def made_nodes(model: ir.Model, opset: int) -> FusePass:
    """Make nodes of dropout of every spelling, element-wise dropout and Bernoulli included, in place; take bodies out.

    Then a model of an opset below ``opset`` is converted to it; before, random operators that frameworks leave in their
    exports would be in the way.

    Returns:
        The pass, whose report says what was recognised.

    Raises:
        SpecError: the model sums up its own draws already.
        FormError: the opset cannot be converted.
    """
    inputs = {value.name for value in model.graph.inputs}
    if "samples" in inputs and any((node.outputs[0].name or "").startswith(_SUMMED) for node in model.graph):
        raise SpecError(
            "the model has an input 'samples', as files of monte_carlo have; give the model that it was made of"
        )
    DetachPass().call(model)
    fusion = FusePass(elementwise=True, bernoulli=True)
    fusion.call(model)
    if model.opset_imports.get("", opset) < opset:
        OpsetPass(opset).call(model)
    return fusion


def prepare(model: ir.Model, layers: Layers = "all", seed: int | None = None, strata: int = 1) -> Prepared:
    """Switch dropout on, in place.

    1. What a training-mode export spells out becomes nodes (see made_nodes); functions are written out.
    2. A node that is constantly off, or drops nothing, is not live. With ``layers``, neither are the others.
    3. What is not live is taken out. The switches of the rest become the constant true, wherever they are read.
    4. Everything that followed the model's step follows ``step``; nodes with a constant step follow it too.
    5. With ``seed``, nodes get new seeds derived from it (see seeds.py).
    6. Where no node balances its draws yet, they balance them over ``strata`` steps (see stratify.py).

    Raises:
        SpecError: nothing is live, or ``layers`` names a node that is not there; or as made_nodes does.
        FormError: as made_nodes does.
    """
    fusion = made_nodes(model, FIRST_OPSET)  # case 1
    if model.functions:
        ir.passes.common.InlinePass()(model)
        model.functions.clear()
    if seed is not None:
        SeedsPass(seed, keep_ties=True).call(model)  # case 5
    if all(op.read(site.node).strata == 1 for site in scopes.spatial_dropouts(model)):
        StratifyPass(strata).call(model)  # case 6
    live, idle = _chosen(model, layers)
    if not live:
        raise SpecError(nothing_live(fusion))
    names = Names(model)
    notes = _notes(fusion)
    _take_out(model, idle, names)
    _switch_on(model, live)
    step = _follow_step(model, live, names)
    return Prepared(model, step, live, notes)


def _chosen(model: ir.Model, layers: Layers) -> tuple[list[ir.Node], list[ir.Node]]:
    """Return the nodes that are to draw, and those that are to go."""
    nodes = [site.node for site in scopes.spatial_dropouts(model)]
    live = [node for node in nodes if _can_draw(node)]  # case 2
    if layers == "last":
        live = live[-1:]
    elif layers != "all":
        known = {name: node for node in live for name in (node.name, node.outputs[0].name) if name}
        missing = [name for name in layers if name not in known]
        if missing:
            offered = ", ".join(repr(node.name or node.outputs[0].name) for node in live) or "none"
            raise SpecError(f"layers: there is no live dropout {missing[0]!r}; there are {offered}")
        wanted = {known[name] for name in layers}
        live = [node for node in live if node in wanted]
    return live, [node for node in nodes if node not in set(live)]


def _can_draw(node: ir.Node) -> bool:
    attributes = op.read(node)
    training = controls.constant_of(node.inputs[1])
    return attributes.ratio > 0 and (training is None or bool(training.reshape(-1)[0]))


def nothing_live(fusion: FusePass) -> str:
    """Return why a model has no live dropout after ``fusion``, and what to do."""
    refused = [record for record in fusion.report.refused if record.reason]
    if refused:
        return (
            f"no live dropout: {refused[0].name!r} was not recognised ({refused[0].reason}); "
            "`onnx-spatialdrop fuse --explain` says more"
        )
    return (
        "no live dropout: the model always computes the same; put some in first, for example "
        "`onnx-spatialdrop insert MODEL --last --rate 0.2`, or export the network with its dropout"
    )


def _notes(fusion: FusePass) -> list[str]:
    notes = [f"not recognised as dropout: {record.name!r}: {record.reason}" for record in fusion.report.refused]
    for record in fusion.report.fused:
        notes += [f"{record.name!r}: {note}" for note in record.notes]
    return notes


def _take_out(model: ir.Model, nodes: Iterable[ir.Node], names: Names) -> None:
    """Remove nodes as if they were off; one that only multiplies stays, on."""
    steering: list[ir.Value | None] = []
    for node in nodes:
        steering += node.inputs[1:]
        remove_node(node, names)
    prune.prune_unused(model, steering)


def _switch_on(model: ir.Model, live: list[ir.Node]) -> None:
    true = _initializer(model.graph, "training_mode_is_on", np.array(True))
    found = controls.behind(node.inputs[1] for node in live)
    for value in found:
        if value.dtype in (ir.DataType.BOOL, None):
            value.replace_all_uses_with(true)
            model.graph.inputs.remove(value)
            model.graph.initializers.pop(value.name or "", None)
    old = [node.inputs[1] for node in live]
    for node in live:
        node.replace_input_with(1, true)
    prune.prune_unused(model, [value for value in old if value is not true])


def _follow_step(model: ir.Model, live: list[ir.Node], names: Names) -> ir.Value:
    graph = model.graph
    old = {value: None for value in controls.behind(node.inputs[2] for node in live) if value.dtype != ir.DataType.BOOL}
    for value in old:
        graph.inputs.remove(value)
        graph.initializers.pop(value.name or "", None)
    step = ir.Value(name=_free(model, STEP), type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([None]))
    graph.inputs.append(step)
    for value in old:
        value.replace_all_uses_with(step)
    left: list[ir.Value | None] = []
    for node in live:
        source = node.inputs[2]
        constant = controls.constant_of(source)
        if constant is None:
            continue
        left.append(source)
        stream = max(0, -1 - int(constant.reshape(-1)[0]))
        node.replace_input_with(2, _shifted(model, node, step, stream, names) if stream else step)
    prune.prune_unused(model, left)
    return step


def _shifted(model: ir.Model, node: ir.Node, step: ir.Value, stream: int, names: Names) -> ir.Value:
    """Return a step of its own for a node that shares its seed with others and is told apart by its step."""
    name = names.prefix(f"{op.describe(node)}/stream")
    offset = _initializer(model.graph, f"{name}/offset", np.array([stream * _STREAM], np.int64))
    add = ir.Node("", "Add", [step, offset], outputs=[ir.Value(name=name)], name=name)
    model.graph.insert_before(model.graph[0], add)
    return add.outputs[0]


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    unique, count = name, 1
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(name=unique, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def _free(model: ir.Model, name: str) -> str:
    taken = {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    taken |= {value.name for node in model.graph.all_nodes() for value in node.outputs}
    if name in taken:
        raise SpecError(
            f"the model's value {name!r} is no switch of dropout; rename it, since the file needs that name"
        )
    return name


def is_stochastic_source(node: ir.Node, live: frozenset[ir.Node]) -> bool:
    """Return whether a node draws: a live SpatialDropout, or noise of the runtime's own."""
    if node in live:
        return True
    if node.domain not in ("", "ai.onnx"):
        return False
    return node.op_type in _RANDOM or (node.op_type == "Dropout" and len(node.inputs) > 2 and _may_train(node))


_RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def _may_train(node: ir.Node) -> bool:
    training = controls.constant_of(node.inputs[2])
    return node.inputs[2] is not None and (training is None or bool(training.reshape(-1)[0]))
