"""Markers: how a dropout layer's call comes through another exporter, and what is made of it afterwards.

A framework's exporter writes a Marker node where a dropout layer was called; this module turns it into the operator.
It knows no framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import counters
from onnx_spatialdrop.graph import controls, replace, scopes
from onnx_spatialdrop.graph.layers import CALL_KEY
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes import seeds

__all__ = ["AXES", "CALL", "MARKER", "VECTORIZED", "Call", "find_markers", "replace_markers", "require_all"]

#: The marker's operator type, in the operator's own domain, and its attributes. No file that we hand out has it.
MARKER: Final = "Marker"
CALL: Final = "call"
AXES: Final = "axes"
VECTORIZED: Final = "vectorized"


@dataclass(frozen=True)
class Call:
    """One call of a dropout layer, as it was seen while the model was traced.

    Attributes:
        layer: the layer's qualified name; the node is named after it.
        rate: fraction dropped, in [0, 1], the double that the user gave.
        axes: axes of the layer's input along which one mask entry is shared; () is element-wise.
        rank: the rank of the layer's input.
        dtype: the type of the layer's input, as NumPy names it.
        seed: the layer's own seed; None where it has none.
        owner: equal for calls of one layer.
        metadata: what else goes into the node's metadata_props.
        draw: which draw of the framework's own generator it is; None: the node draws by philox.
        scaled: whether kept values are multiplied by 1 / (1 - rate); False leaves them as they are.
    """

    layer: str
    rate: float
    axes: tuple[int, ...]
    rank: int
    dtype: str
    seed: int | None = None
    owner: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    draw: counters.Draw | None = None
    scaled: bool = True


def find_markers(model: ir.Model) -> list[ir.Node]:
    """Return the model's Marker nodes, in the order of their calls."""
    found = [node for node in scopes.all_nodes(model) if node.domain == spec.DOMAIN and node.op_type == MARKER]
    return sorted(found, key=lambda node: node.attributes[CALL].as_int())


def require_all(model: ir.Model, calls: Mapping[int, Call]) -> None:
    """Check that every layer that was called has a marker in the file.

    Raises:
        SpatialDropError: an exporter folded one away; it names the layer.
    """
    owners = {calls[node.attributes[CALL].as_int()].owner for node in find_markers(model)}
    for call in calls.values():
        if call.owner not in owners:
            raise SpatialDropError(
                f"layer {call.layer!r}: its dropout was traced but is not in the exported graph (the exporter folded "
                "or dropped it, as it does where the layer's input is a constant or its output is unused); export with "
                'dropout="inference" (with tf2onnx: outside exporting()), or take the layer out of the call'
            )


def replace_markers(
    model: ir.Model,
    calls: Mapping[int, Call],
    base_seed: int,
    *,
    training_mode: bool = False,
    step: int = -1,
    always: bool = False,
) -> list[ir.Node]:
    """Turn every Marker node into a SpatialDropout node, in place; return those, in the order of their calls.

    1. All share one pair of switches; without markers none is made. A node that draws as the framework does reads
       ``step`` through nodes that make its generator's counter of it, where that is another number; see counters.py.
       The model's metadata then says which step the framework's next training call is.
    2. Each has a seed of its own. One that draws as the framework does has its generator's, or one that draws the same.
       Elsewhere a layer's own seed goes to its first call; where two layers were given equal seeds, to the first of
       them. Every further call of such a layer gets one derived from the layer's seed, every other one is derived from
       ``base_seed``, in the order of the calls.
    3. A node is named after its layer, with ":1", ":2", ... from a second call on (and where two layers share a name);
       the root's is called "SpatialDropout". Its metadata_props hold the number of the call.
    4. The axes are the marker's own where it has some (an exporter that moves transposes corrects them there).

    Args:
        model: what an exporter wrote.
        calls: every call that was traced; a marker's attribute ``call`` is a key of it.
        base_seed: see case 2.
        training_mode: the switch's default; False: the file is the inference model.
        step: the switch's default; -1 is a fresh draw every run.
        always: make training_mode a constant true instead of a switch: trainers run a model as it stands.

    Raises:
        SpatialDropError: a marker stands on a tensor of another rank than the layer did.
    """
    markers = find_markers(model)
    made: list[ir.Node] = []
    if markers:
        mode_input, step_input = controls.add_switches(model.graph, training_mode or always, step)
        if always:
            model.graph.inputs.remove(mode_input)
        taken: set[str] = {node.name for node in scopes.all_nodes(model) if node.name and node not in markers}
        order = [calls[node.attributes[CALL].as_int()] for node in markers]
        steps = _steps(model, order, step_input)
        seen: Counter[str] = Counter()
        for marker, call, seed, own_step in zip(markers, order, _seeds(order, base_seed), steps, strict=True):
            name = _free_name(call.layer or spec.OP_TYPE, taken)
            made.append(_replace(marker, call, seed, mode_input, own_step, name))
            made[-1].metadata_props[CALL_KEY] = str(seen[call.layer])
            seen[call.layer] += 1
    for scope in scopes.scopes(model):
        if made and any(op.is_spatial_dropout(node) for node in scope.all_nodes()):
            scope.opset_imports[spec.DOMAIN] = spec.VERSION
        else:
            scope.opset_imports.pop(spec.DOMAIN, None)
    return made


def _steps(model: ir.Model, order: Sequence[Call], step: ir.Value) -> list[ir.Value]:
    draws = [call.draw for call in order if call.draw is not None]
    if not draws:
        return [step] * len(order)
    counted, upcoming = counters.count(draws)
    model.metadata_props[counters.NEXT_STEP_KEY] = str(upcoming)
    steps, each = counters.StepInputs(model, step), iter(counted)
    values = [step if call.draw is None else steps.value(next(each)) for call in order]
    steps.insert()
    return values


def _seeds(order: Sequence[Call], base_seed: int) -> list[int]:
    taken: set[int] = set()
    drawn = iter(counters.own_seeds([call.draw for call in order if call.draw is not None], taken))
    given: list[int | None] = []
    for call in order:  # explicit seeds first, so that no derived one collides with them
        if call.draw is not None:
            given.append(next(drawn))
            continue
        own = None if call.seed is None else spec.signed_seed(call.seed, f"layer {call.layer!r}")
        given.append(own if own is not None and own not in taken else None)
        if own is not None:
            taken.add(own)
    bases = [base_seed if call.seed is None else call.seed for call in order]
    missing = Counter(base for base, seed in zip(bases, given, strict=True) if seed is None)
    fresh: dict[int, Iterator[int]] = {}
    for base, count in missing.items():
        derived = seeds.derive_seeds(base, count, frozenset(taken))
        taken.update(derived)
        fresh[base] = iter(derived)
    return [next(fresh[base]) if seed is None else seed for base, seed in zip(bases, given, strict=True)]


def _free_name(name: str, taken: set[str]) -> str:
    free, count = name, 0
    while free in taken:
        count += 1
        free = f"{name}:{count}"
    taken.add(free)
    return free


def _replace(marker: ir.Node, call: Call, seed: int, training_mode: ir.Value, step: ir.Value, name: str) -> ir.Node:
    x, old, graph = marker.inputs[0], marker.outputs[0], marker.graph
    assert x is not None
    assert graph is not None
    rank = next((len(value.shape) for value in (x, old) if value.shape is not None), call.rank)
    if rank != call.rank or VECTORIZED in marker.attributes:
        raise SpatialDropError(
            f"layer {call.layer!r}: it was called on rank {call.rank}, but the exporter vectorised it over one more "
            "axis (as TimeDistributed over an unknown number of steps does); give that number in input_signature"
        )
    node_type = {dtype: kind for kind, dtype in op.FLOAT_TYPES.items()}[spec.DTYPES[call.dtype]]
    if x.dtype is None:
        x.type = ir.TensorType(node_type)
    if x.shape is None:  # its rank has to be known wherever its mask becomes an input
        x.shape = old.shape or ir.Shape([None] * call.rank)
    axes = marker.attributes[AXES].as_ints() if AXES in marker.attributes else call.axes
    rng = "philox" if call.draw is None else call.draw.rng
    node = op.spatial_dropout(
        x,
        dialects.ratio_for(call.rate, rng, spec.DTYPES[call.dtype], f"layer {call.layer!r}"),
        training_mode=training_mode,
        step=step,
        seed=seed,
        axes=tuple(axes),
        scale=spec.explicit_scale(call.rate, op.numpy_dtype(x)) if call.scaled else 1.0,
        rng=rng,
        name=name,
    )
    node.metadata_props.update({**marker.metadata_props, **call.metadata})
    graph.insert_before(marker, node)
    if old.type is None:
        old.type = x.type
    if old.shape is None:
        old.shape = x.shape
    replace.take_over(old, node.outputs[0])
    op.complete(node)
    graph.remove(marker, safe=True)
    return node
