"""Monte Carlo dropout as one file: draws and statistics are nodes, so that one run in any runtime gives both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.montecarlo import cost, drawing
from onnx_spatialdrop.montecarlo.batches import prepared_plan
from onnx_spatialdrop.montecarlo.needed import keep_needed
from onnx_spatialdrop.montecarlo.options import STRATA, Chunk, Layers, Options, chunk_of, options, target_of
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.summing import Chunking, Counts, is_double, state_dims, statistics
from onnx_spatialdrop.montecarlo.tasks import Target, choose_tasks
from onnx_spatialdrop.operator.bodies import body
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.expand import ExpandPass
from onnx_spatialdrop.passes.expand.targets import NO_DEFAULTS

__all__ = ["MonteCarloPass", "monte_carlo"]

#: Bytes of activations that the draws of one trip may take.
BUDGET: Final = 64 << 20
#: Bytes of activations beyond which more rows at once no longer make a run faster, as measured.
CACHE: Final = 1 << 20


class MonteCarloPass(ir.passes.InPlacePass):
    """Make a model sum up its own draws; ``plan`` and ``targets`` say what was done.

    1. Dropout is switched on (see prepare.py); what no draw touches runs once, the rest for each draw (see plan.py).
    2. Inputs ``samples`` (how many draws, int64 [1]) and ``step`` (int64 [1] or [N], the step of each row's first
       draw) are added, with defaults; outputs that differ from draw to draw give way to their statistics.
    3. Where it is proven that samples do not meet, draws are laid behind each other in the batch: all at once, or in
       a Loop of chunks. Else the rest runs once a draw, which is right whatever it does.
    4. One output gives ``mean``, ``variance``, ...; several give ``NAME_mean``, ``NAME_variance``, ...
    5. Outputs that are the same for every draw stay.
    6. From opset 18 on the file carries the operator's definition, so that it runs with our library and without.
    """

    def __init__(self, chosen: Options, chunk: Chunk = "auto", defaults: bool = True) -> None:
        super().__init__()
        self.options = chosen
        self.chunk = chunk
        self.defaults = defaults
        self.plan: Plan | None = None
        self.targets: list[Target] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        chosen = self.options
        plan = self.plan = prepared_plan(model, chosen.layers, strata=chosen.strata)
        targets = self.targets = choose_tasks(
            plan.stochastic, plan.facts, chosen.task, chosen.statistics, chosen.class_axis, chosen.log_variance
        )
        graph = model.graph
        prefix = Names(model).prefix("monte_carlo")
        samples = self._input(graph, "samples", chosen.samples, [1])
        first = self._step_input(graph, plan)
        chunking = _chunking(plan, self.chunk, chosen.samples)
        graph.remove(plan.suffix)
        build = NodeBuilder(prefix, {})
        rows = drawing.count_rows(build, plan)
        # Not Expand alone: ONNX Runtime would try to remove it, and warn that a Loop reads what it returns.
        zeros = build.add("Expand", build.constant(np.array([0], np.int64), "none"), rows, role="no_steps")
        steps = build.add("Add", first, zeros, role="first_steps")
        results = statistics(build, plan, targets, chunking, Counts(samples, steps, rows))
        graph.extend(build.nodes)
        _return(graph, plan, targets, results)
        keep_needed(graph)
        if scopes.default_opset(graph, model) >= body.MIN_OPSET:  # case 6
            AttachPass().call(model)
        return ir.passes.PassResult(model, modified=True)

    def _input(self, graph: ir.Graph, name: str, default: int, shape: list[int | str]) -> ir.Value:
        if any(value.name == name for value in graph.inputs):
            raise SpecError(f"the model has an input {name!r} of its own; rename it, since the file needs that name")
        array = np.array([default], np.int64)
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(shape))
        graph.inputs.append(value)
        if self.defaults:
            value.const_value = ir.tensor(array, name=name)
            graph.register_initializer(value)
        return value

    def _step_input(self, graph: ir.Graph, plan: Plan) -> ir.Value:
        """Return the input ``step`` with its default; what read the prepared model's reads what is computed of it."""
        graph.inputs.remove(plan.prepared.step)
        plan.prepared.step.name = f"{plan.prepared.step.name}/of_the_draw"
        return self._input(graph, "step", 0, ["steps"])


def _chunking(plan: Plan, chunk: Chunk, samples: int) -> Chunking:
    """Return how many draws run at once: by the bytes that a row of the suffix takes."""
    if not plan.proven:
        return Chunking(draws=1)
    if chunk == "all":
        return Chunking()
    if isinstance(chunk, int):
        return Chunking(draws=chunk)
    peak = max(1, cost.peak_bytes(plan.suffix, plan.facts, {}))
    whole = cost.peak_bytes([*plan.prefix, *plan.suffix], plan.facts, {})
    if peak * samples <= whole:
        return Chunking()
    return Chunking(rows=max(1, min(BUDGET, CACHE) // peak), most_rows=BUDGET // peak)


def _return(graph: ir.Graph, plan: Plan, targets: list[Target], results: list[dict[str, ir.Value]]) -> None:
    """Put the statistics in the place of the outputs."""
    several = len(targets) > 1
    taken = {value.name for value in plan.fixed} | {value.name for value in graph.inputs} | set(graph.initializers)
    outputs: list[ir.Value] = []
    for target, made in zip(targets, results, strict=True):
        used: set[ir.Value] = set()
        for name, value in made.items():
            name = f"{target.value.name}_{name}" if several else name
            if name in taken:
                raise SpecError(
                    f"the model has a value {name!r} of its own; rename it, since an output needs that name"
                )
            if value in used:
                copy = ir.Node("", "Identity", [value], outputs=[ir.Value()], name=f"{name}/copy")
                graph.append(copy)
                value = copy.outputs[0]
            used.add(value)
            value.name = name
            value.type = ir.TensorType(ir.DataType.DOUBLE if is_double(plan, target) else ir.DataType.FLOAT)
            outputs.append(value)
    own = {value.name for value in outputs}
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in own and value not in outputs:
                value.name = f"{value.name}/inner"
    graph.outputs[:] = [*plan.fixed, *outputs]
    for value in outputs:
        value.shape = None
    for target, made in zip(targets, results, strict=True):
        for name, value in made.items():
            dims = _output_dims(plan, target, name)
            if dims is not None:
                value.shape = ir.Shape(dims)


def _output_dims(plan: Plan, target: Target, name: str) -> list[int | str] | None:
    key = "mean" if name in ("mean", "variance", "std", "epistemic", "aleatoric") else "divergence"
    dims = state_dims(plan, target, key)
    return None if dims is None else [_BATCH if dim is None else dim for dim in dims]


_BATCH: Final = "N"


@io.same_kind
def monte_carlo(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    samples: int = 31,
    task: str | Mapping[str, str] = "auto",
    statistics: Sequence[str] | None = None,
    layers: Layers = "all",
    chunk: Chunk = "auto",
    class_axis: int | None = None,
    log_variance: str | Mapping[str, str] | None = None,
    strata: int = STRATA,
    target: str | None = None,
) -> io.Result:
    """Return a model that draws and sums up its own draws: mean, variance, entropy, mutual information in one run.

    It takes the model's inputs and two more, with defaults: ``samples`` (int64 [1], the number of draws) and ``step``
    (int64 [1] or [N], the step of each row's first draw; 0 by default). Draw t of row n uses step[n] + t. One step for
    all rows gives them the same masks; to keep rows apart, feed id * 2**20, as MCDropout does. Each output that
    differs from draw to draw gives way to its statistics, ``mean`` and so on (``NAME_mean``, where there are several
    such outputs); entropies are in nats, the variance is that over the draws with ddof = 0.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model, with nodes or exported in training mode; it is not changed.
        output: a file to write; then its path is returned.
        samples: the default of ``samples``, from 1 on.
        task: "classification", "segmentation", "regression" or "binary" (a yes or no an entry), for all outputs or
            by output; "auto" reads it off the last nodes: see choose_tasks.
        statistics: which to make. For classes of "mean", "variance", "std", "entropy", "mutual_information",
            "expected_entropy", "variation_ratio"; for regression of "mean", "variance", "std", and with
            ``log_variance`` also "epistemic", "aleatoric". By default the first four of a list, for regression two.
        layers: "all", "last", or the names of the nodes (or of their outputs) whose dropout is on; the others go.
        chunk: how many draws run at once: a number, "all", or "auto", by the memory that they take.
        class_axis: the axis of classes, where it cannot be told.
        log_variance: the output that holds the logarithm of the variance of the data (a heteroscedastic head), or
            {output: its log-variance}.
        strata: nodes with the rng "philox" balance their draws over so many steps, a prime from 3 to 127, so that
            means need about half as many; take a multiple of it for ``samples``. 1: draws are independent.
        target: what will run the file, where that knows neither our operator nor functions (see expand). None keeps
            the nodes, with the operator's definition from opset 18 on: ONNX Runtime runs them with our library and
            without.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: no dropout is live, or an argument that does not fit the model.
        FormError: the target cannot draw several times a run, or its opset cannot be converted.
        ModelFileError: a file that cannot be read or written.
    """
    chosen = options(samples, task, statistics, layers, class_axis, log_variance, strata)
    name = target_of(target)
    passes: list[ir.passes.InPlacePass] = [MonteCarloPass(chosen, chunk_of(chunk), name not in NO_DEFAULTS)]
    if name is not None:
        passes.append(ExpandPass(None, name))
    return io.apply(model, output, *passes)
