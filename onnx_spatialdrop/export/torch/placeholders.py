"""Turn the placeholders that a torch export left in a model into SpatialDropout nodes.

Knows ONNX graphs only; torch is never imported here. What puts the placeholders there is capture.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.graph import prune, replace, scopes
from onnx_spatialdrop.graph.controls import add_switches, constant_of
from onnx_spatialdrop.graph.layers import CALL_KEY, LAYER_KEY
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.seeds import derive_seeds

__all__ = ["DOMAIN", "OP_TYPE", "qualified", "replace_placeholders"]

#: A domain that no runtime knows: a file in which a placeholder was left over does not load.
DOMAIN: Final = "onnx_spatialdrop.torch"
OP_TYPE: Final = "SpatialDropout"

_REFUSED: Final = {
    "feature_alpha": (
        "is feature alpha dropout, which moves kept and dropped maps by constants that no SpatialDropout node has",
        "nn.Dropout2d",
    ),
    "alpha": (
        "is alpha dropout, which moves kept and dropped values by constants that no SpatialDropout node has",
        "nn.Dropout, leave elementwise=False",
    ),
}


def replace_placeholders(
    model: ir.Model, modules: Sequence[str], *, seed: int, training_mode: bool, step: int, always: bool = False
) -> None:
    """Replace every placeholder by a SpatialDropout node, in place.

    1. The nodes of a model share one pair of switches; without placeholders none is made.
    2. Node i in the order of the file gets the i-th seed derived from ``seed``, as passes/seeds.py would give it.
    3. torch runs an unbatched input as a batch of one. Where Unsqueeze and Squeeze around a placeholder do only that,
       they go, and the node's axes count in the unbatched tensor.
    4. A node is named after the module that called it, with its name in metadata_props too, and which of the module's
       calls it is.

    Args:
        model: the exported model.
        modules: the names of ``module.named_modules()``, where a TorchScript export's scopes are to be resolved.
        seed: base of the nodes' seeds.
        training_mode: the switch's default.
        step: the switch's default.
        always: make training_mode a constant true instead of a switch. Trainers run a model as it stands: a switch
            that is off by default would train without dropout, and nobody would be told.

    Raises:
        SpatialDropError: a kind of dropout that SpatialDropout cannot express; it names the layer.
    """
    placeholders = [node for node in scopes.all_nodes(model) if node.domain == DOMAIN]
    model.graph.opset_imports.pop(DOMAIN, None)
    if not placeholders:
        return
    layers = [_layer(node, modules) for node in placeholders]
    calls = _calls(placeholders, layers)
    for node, layer in zip(placeholders, layers, strict=True):
        _refuse(node, layer)
    model.graph.opset_imports[spec.DOMAIN] = spec.VERSION
    switches = add_switches(model.graph, training_mode or always, step)  # case 1
    if always:
        model.graph.inputs.remove(switches[0])
    names = {node.name for node in scopes.all_nodes(model)}
    seeds = derive_seeds(seed, len(placeholders))  # case 2
    orphans: list[ir.Value] = []
    for node, layer, call, own in zip(placeholders, layers, calls, seeds, strict=True):
        name = _unique(f"{layer}/{spec.OP_TYPE}" if layer else spec.OP_TYPE, names)
        metadata = {LAYER_KEY: layer, CALL_KEY: str(call)}
        orphans += _replace(node, _unbatched(node), switches, own, name, metadata)
    prune.prune_unused(model, orphans)


def _refuse(node: ir.Node, layer: str) -> None:
    reason = _REFUSED.get(node.attributes["kind"].as_string())
    if reason is not None:
        where = f"layer {layer!r}" if layer else "the module"
        raise SpatialDropError(
            f"{where} {reason[0]}; replace it by {reason[1]}, or export with dropout='inference', which takes it out"
        )


def _replace(
    old: ir.Node,
    squeezes: list[ir.Node],
    switches: tuple[ir.Value, ir.Value],
    seed: int,
    name: str,
    metadata: dict[str, str],
) -> list[ir.Value]:
    """Put a node in the place of ``old``; return the values that may have lost their last user by that."""
    graph, x, y = old.graph, old.inputs[0], old.outputs[0]
    assert graph is not None
    assert x is not None
    first, rank = old.attributes["first"].as_int(), old.attributes["rank"].as_int()
    if squeezes:
        source = x.producer()
        assert source is not None
        x, y, first, rank = _input(source), squeezes[0].outputs[0], first - 1, rank - 1
        for other in squeezes[1:]:
            other.outputs[0].replace_all_uses_with(y, replace_graph_outputs=True)
    if x.type is None:  # TorchScript notes few types, and dropout changes none
        x.type, x.shape = y.type, y.shape
    new = op.spatial_dropout(
        x,
        old.attributes["ratio"].as_float(),
        training_mode=switches[0],
        step=switches[1],
        seed=seed,
        axes=tuple(range(first, rank)),
        scale=old.attributes["scale"].as_float(),
        name=name,
    )
    new.metadata_props.update(old.metadata_props)
    new.metadata_props.update(metadata)
    graph.insert_before(old, new)
    replace.take_over(y, new.outputs[0])
    op.complete(new)
    inputs = [value for node in (*squeezes, old) for value in node.inputs if value is not None]
    graph.remove([*squeezes, old], safe=True)
    return inputs


def _calls(placeholders: Sequence[ir.Node], layers: Sequence[str]) -> list[int]:
    """Return which call of its layer each placeholder is, in the order in which the module made them."""
    order = sorted(range(len(layers)), key=lambda index: placeholders[index].attributes["call"].as_int())
    seen: Counter[str] = Counter()
    calls = [0] * len(layers)
    for index in order:
        calls[index] = seen[layers[index]]
        seen[layers[index]] += 1
    return calls


def _unbatched(node: ir.Node) -> list[ir.Node]:
    """Return the Squeeze nodes that take off the batch of one which an Unsqueeze before ``node`` put on; else []."""
    before = _input(node).producer()
    after = [use.node for use in node.outputs[0].uses()]
    around = [before, *after]
    if before is None or node.outputs[0].is_graph_output() or node.attributes["first"].as_int() < 2 or not after:
        return []
    if [each.op_type if each else "" for each in around] != ["Unsqueeze", *["Squeeze"] * len(after)]:
        return []
    if before.graph is not node.graph or any(each.graph is not node.graph for each in after):
        return []
    return after if all(_axes(each) == [0] for each in around if each) else []


def _axes(node: ir.Node) -> list[int] | None:
    """Return the constant axes of an Unsqueeze or Squeeze, an attribute before opset 13; None where unknown."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    found = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if found is None else [int(axis) for axis in found.reshape(-1)]


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _unique(name: str, taken: set[str | None]) -> str:
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found


def _layer(node: ir.Node, modules: Sequence[str]) -> str:
    """Return the qualified name of the module that called the dropout.

    An exported program tells it beforehand; the TorchScript exporter leaves the way to the module in the node's name.
    """
    if "layer" in node.attributes:
        return node.attributes["layer"].as_string()
    found = ""
    for part in (node.name or "").strip("/").split("/")[:-1]:
        inside = [name for name in modules if name.startswith(f"{found}." if found else "")]
        once = re.sub(r"_\d+$", "", part)  # a module's second call is shown as drop_1
        matching = (name for last in (part, once) for name in (*inside, *modules) if _last(name) == last)
        found = next(matching, f"{found}.{part}" if found else part)
    return found


def qualified(path: str) -> str:
    """Return a module's qualified name; strict programs of torch 2.6 have ``getattr(L['self'].a, '1').b`` for a.1.b."""
    if not path.startswith(("L[", "getattr(")):
        return path
    found, count = path, 1
    while count:
        found, count = re.subn(r"getattr\(([^()]*), '([^']*)'\)", r"\1.\2", found)
    found = re.sub(r"^L\['\w+'\]", "", found).replace("._modules", "")
    return re.sub(r"\['?([^'\]]*)'?\]", r".\1", found).strip(".")


def _last(name: str) -> str:
    """Return ``name`` from its last part that is no number on, as TorchScript's scopes show a module."""
    parts = name.split(".")
    start = max((index for index, part in enumerate(parts) if not part.isnumeric()), default=0)
    return ".".join(parts[start:])
