"""Put spatial dropout into a clean inference model: SpatialDropout nodes after the values that the caller names.

It works on values of the main graph and adds nothing but its nodes and the model's two switches.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.graph.ir_version import raise_ir_version
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes import attach, places, seeds

__all__ = ["After", "InsertPass", "insert"]

#: A value's name, several, or names with a rate each.
After = str | Iterable[str] | Mapping[str, float]

_SUGGESTIONS: Final = 3


class InsertPass(ir.passes.InPlacePass):
    """Insert a SpatialDropout node after each named value of the main graph.

    1. Everything that read the value X, subgraphs included, reads Y = ``X/dropped`` instead; the mask is ``X/mask``.
    2. Where X is a graph output, Y takes the output's name, and X is called ``X/undropped`` from then on.
    3. A graph input or an initializer keeps its name and is dropped from too; one that is a graph output itself
       is refused, since two values cannot share the name.
    4. The nodes read the model's switches, which are made where they are missing: the model computes what it
       computed before until somebody feeds training_mode = true.
    5. Seeds are derived from one base seed, in the order of the file, and differ from those that the model has already.
    6. A type or rank that the file does not give is inferred; one that stays unknown is accepted if ``axes`` are given.
    7. A name that is taken gets a number: ``X/dropped_1``. The node is named ``X/SpatialDropout``.
    8. A name that no value has may be a node's, and stands for its first output. Everything is checked
       before anything changes; without a value to insert after, the model is not modified.
    9. The nodes draw by "philox"; a function body that the model has is attached anew, so that it knows them.
    10. With ``after_op``, ``before_op`` or ``last`` values are found by kind, see places.py; dropout after one that has
        no spatial axes (rank 2 or less) is element-wise where nothing else is said.
    """

    def __init__(
        self,
        after: After | None = None,
        *,
        after_op: str | Sequence[str] | None = None,
        before_op: str | Sequence[str] | None = None,
        last: bool = False,
        rate: float = 0.5,
        axes: Sequence[int] | None = None,
        noise_shape: Sequence[int | None] | None = None,
        data_format: str = "channels_first",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.rate = arguments.fraction(rate, "rate")
        self.rates = {} if after is None else _rates(after, self.rate)
        self.after_op = [] if after_op is None else arguments.strings(after_op, "after_op")
        self.before_op = [] if before_op is None else arguments.strings(before_op, "before_op")
        self.last = arguments.flag(last, "last")
        self.by_kind = bool(self.after_op or self.before_op or self.last)
        if (after is not None) == self.by_kind:
            raise SpecError("where dropout goes: give after, or else after_op, before_op or last")
        self.inserted: list[str] = []
        self.axes = None if axes is None else arguments.integers(axes, "axes")
        self.noise_shape = None if noise_shape is None else arguments.noise_shape(noise_shape, "noise_shape")
        self.data_format = arguments.choice(data_format, "data_format", op.DATA_FORMATS)
        self.seed = arguments.seed(seed, "seed")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        if self.by_kind:  # case 10
            found = places.by_kind(model.graph, self.after_op, self.before_op, self.last)
            self.rates = {value.name or "": self.rate for value in found}
        rates = _by_value(model, self.rates)  # case 8
        targets = _targets(model, rates)
        self.inserted = [value.name or "" for value in targets]
        known = dict(zip(targets, input_types.known_values(model, targets), strict=True))  # case 6
        axes = [self._axes(x, rates[x.name or ""], *known[x]) for x in targets]  # case 8
        if not targets:
            return ir.passes.PassResult(model, modified=False)
        taken = frozenset(op.read(site.node).seed for site in scopes.spatial_dropouts(model))
        derived = seeds.derive_seeds(self.seed, len(targets), taken)  # case 5
        training_mode, step = controls.add_switches(model.graph)  # case 4
        first, names = next(iter(model.graph), None), _names(model.graph)
        for x, seed, shared in zip(targets, derived, axes, strict=True):
            x.type, shape = known[x]
            if shape is not None and (x.shape is None or len(x.shape) != len(shape)):
                x.shape = input_types.written(shape)
            node = op.spatial_dropout(
                x,
                rates[x.name or ""],
                training_mode=training_mode,
                step=step,
                seed=seed,
                axes=shared,
                name=_free(names, f"{x.name}/SpatialDropout"),
            )
            _rewire(model.graph, x, node, names)
            _place(model.graph, first, x, node)
        model.opset_imports[spec.DOMAIN] = spec.VERSION
        attach.renew(model)  # case 9
        raise_ir_version(model)
        return ir.passes.PassResult(model, modified=True)

    def _axes(self, x: ir.Value, rate: float, known: ir.TypeProtocol | None, shape: ir.Shape | None) -> tuple[int, ...]:
        where = f"value {x.name!r}"
        if known is not None and (not isinstance(known, ir.TensorType) or known.dtype not in op.FLOAT_TYPES):
            allowed = ", ".join(dtype.name for dtype in op.FLOAT_TYPES)
            raise SpecError(f"{where}: has type {known}; dropout is for {allowed}; name another value")
        if x.is_graph_output() and x.producer() is None:  # case 3
            raise SpecError(f"{where}: is a graph output and nothing computes it; put an Identity between the two")
        rank = None if shape is None else len(shape)
        if self.by_kind and rank is not None and rank < 3 and self.axes is None and self.noise_shape is None:
            return ()  # case 10
        shared = op.shared_axes(
            rank,
            axes=self.axes,
            noise_shape=self.noise_shape,
            data_format=self.data_format,
            shape=shape,
            where=where,
        )
        spec.Attributes(shared, rate, 0, where=where)
        return shared


def _rates(after: After, rate: float) -> dict[str, float]:
    if isinstance(after, Mapping):
        return {
            arguments.string(name, "a name in after"): arguments.fraction(own, f"after[{name!r}]")
            for name, own in after.items()
        }
    names = arguments.strings(after, "after")
    for name, count in Counter(names).items():
        if count > 1:
            raise SpecError(f"value {name!r}: is named {count} times in after; name each value once")
    return dict.fromkeys(names, rate)


def _by_value(model: ir.Model, rates: Mapping[str, float]) -> dict[str, float]:
    """Return the rates by values' names; a name that only a node has stands for the node's first output."""
    nodes = {node.name: node.outputs[0].name for node in model.graph if node.name and node.outputs}
    values = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    values.update(out.name for node in model.graph for out in node.outputs)
    found: dict[str, float] = {}
    for name, rate in rates.items():
        value = name if name in values else nodes.get(name) or name
        if value in found:
            raise SpecError(f"value {value!r}: is named in after, and so is its node; name one of them")
        found[value] = rate
    return found


def _targets(model: ir.Model, names: Iterable[str]) -> list[ir.Value]:
    """Return the named values in the order of the file."""
    graph = model.graph
    known: dict[str, ir.Value] = {}
    for value in (*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)):
        if value.name:
            known.setdefault(value.name, value)
    wanted = set(names)
    for name in names:
        if name not in known:
            raise SpecError(_unknown(model, name, list(known)))
    return [value for name, value in known.items() if name in wanted]


def _unknown(model: ir.Model, name: str, known: list[str]) -> str:
    inner = (out.name for node in scopes.all_nodes(model) if node.graph is not model.graph for out in node.outputs)
    if name in inner:
        return f"value {name!r}: is inside a subgraph or a function; insert works on values of the main graph"
    close = ", ".join(repr(other) for other in difflib.get_close_matches(name, known, _SUGGESTIONS, 0.0))
    return f"value {name!r}: the main graph has no such value; the closest names are {close or 'none (it is empty)'}"


def _rewire(graph: ir.Graph, x: ir.Value, node: ir.Node, names: set[str]) -> None:
    name, (y, mask) = x.name or "", node.outputs
    for use in tuple(x.uses()):
        if use.node is not node:
            use.node.replace_input_with(use.idx, y)  # case 1
    if x.is_graph_output():
        for index, output in enumerate(graph.outputs):
            if output is x:
                graph.outputs[index] = y
        x.name = _free(names, f"{name}/undropped")  # case 2
        y.name = name
    else:
        y.name = _free(names, f"{name}/dropped")
    mask.name = _free(names, f"{name}/mask")


def _place(graph: ir.Graph, first: ir.Node | None, x: ir.Value, node: ir.Node) -> None:
    producer = x.producer()
    if producer is not None:
        graph.insert_after(producer, node)
    elif first is not None:
        graph.insert_before(first, node)
    else:
        graph.append(node)


def _names(graph: ir.Graph) -> set[str]:
    names = {*graph.initializers, *(value.name for value in graph.inputs)}
    for node in graph.all_nodes():
        names.update((node.name, *(out.name for out in node.outputs)))
    return {name for name in names if name}


def _free(names: set[str], name: str) -> str:
    """Return ``name``, numbered where it is taken, and take it."""
    free, number = name, 1
    while free in names:
        free, number = f"{name}_{number}", number + 1  # case 7
    names.add(free)
    return free


@io.same_kind
def insert(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    after: After | None = None,
    after_op: str | Sequence[str] | None = None,
    before_op: str | Sequence[str] | None = None,
    last: bool = False,
    rate: float = 0.5,
    axes: Sequence[int] | None = None,
    noise_shape: Sequence[int | None] | None = None,
    data_format: str = "channels_first",
    seed: int = 0,
) -> io.Result:
    """Return the model with a SpatialDropout node after each named value, switched off until training_mode is fed.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        after: the name of a value of the main graph, or of a node, which stands for its first output; several names,
            or a mapping of names to rates.
        after_op: in place of names, operators, such as "Relu": after each node of these.
        before_op: in place of names, operators, such as "Gemm": before each node of these.
        last: the last of those only; alone, before the last layer that has weights. Dropout after a value without
            spatial axes, which is of rank 2 or less, is element-wise in these three cases.
        rate: fraction dropped, in [0, 1], where ``after`` gives none.
        axes: the axes along which one mask entry is shared; negatives count from the end.
        noise_shape: the mask's shape as Keras's Dropout takes it: 1 marks a shared axis, None a full one.
        data_format: "channels_first", the default, or "channels_last"; see operator.node.shared_axes.
        seed: base seed from which every node gets one of its own, in [-2**63, 2**64).

    Returns:
        The same kind of model as came in; from a path, an ir.Model. Names of inputs, initializers and graph outputs are
        kept; the inputs ``training_mode`` and ``step`` are new, with defaults false and -1.

    Raises:
        TypeError: an argument of the wrong kind.
        SpecError: an unknown or repeated name, a value that cannot be dropped from, or an argument out of range.
        ModelFileError: a file that cannot be read or written.
    """
    options = InsertPass(
        after,
        after_op=after_op,
        before_op=before_op,
        last=last,
        rate=rate,
        axes=axes,
        noise_shape=noise_shape,
        data_format=data_format,
        seed=seed,
    )
    return io.apply(model, output, options)
