"""Monte Carlo dropout from Python: two sessions, one for what runs once and one for chunks of draws.

It holds sessions and decides how many draws run at once; what is drawn the model says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop import arguments as checked
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo import cost, parts
from onnx_spatialdrop.montecarlo.batches import prepared_plan
from onnx_spatialdrop.montecarlo.facts import Fact
from onnx_spatialdrop.montecarlo.feeding import Inputs, anew, feeds, first_steps
from onnx_spatialdrop.montecarlo.onefile import BUDGET, CACHE
from onnx_spatialdrop.montecarlo.options import STRATA, Layers, Options, options
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.result import MCResult, Statistics
from onnx_spatialdrop.montecarlo.rounds import Rows, Sums, run_rounds
from onnx_spatialdrop.montecarlo.tasks import STATISTICS, Target, choose_tasks
from onnx_spatialdrop.montecarlo.whole import compare
from onnx_spatialdrop.runtime.session import Kernel, choose, session

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["MCDropout"]

Array = npt.NDArray[Any]
#: Draws of all rows are kept without being asked for up to this many bytes.
_KEPT: Final = 1 << 20
#: Draws after which a row may stop, where draws are independent.
_BLOCK: Final = 16


class MCDropout:
    """Runs a model with its dropout on, many times, and sums the draws up.

    What no draw touches runs once a call; the rest runs on chunks of draws laid behind each other in the batch where
    that is proven to be right (see split), and once a draw elsewhere. Draw t of row n uses step ids[n] * 2**20 +
    t, so that its numbers do not depend on the batch that it comes in.

    Attributes:
        samples: draws a row.
        targets: what is made of each output.
        notes: what was assumed, one line each.
        ends: why draws do not run at once; "" where they do.
    """

    def __init__(
        self,
        model: io.Source,
        samples: int = 31,
        seed: int | None = None,
        *,
        task: str | Mapping[str, str] = "auto",
        statistics: Sequence[str] | None = None,
        layers: Layers = "all",
        class_axis: int | None = None,
        log_variance: str | Mapping[str, str] | None = None,
        strata: int = STRATA,
        tolerance: float | None = None,
        fresh: bool = False,
        check: bool = False,
        draws: bool | None = None,
        chunk: int | None = None,
        budget: int = BUDGET,
        kernel: Kernel = "auto",
        sess_options: onnxruntime.SessionOptions | None = None,
        **arguments: Any,
    ) -> None:
        chosen = options(samples, task, statistics, layers, class_axis, log_variance, strata)
        number = None if seed is None else checked.seed(seed, "seed")
        balanced = 1 if choose(kernel)[0] == "body" else chosen.strata
        self.samples = chosen.samples
        self._tolerance, self._fresh, self._check, self._keep = tolerance, fresh, check, draws
        self._budget, self._chunk = budget, chunk
        kept: dict[str, Any] = {}

        def build(working: ir.Model) -> None:
            plan = prepared_plan(working, chosen.layers, number, balanced)
            kept.update(self._cut(plan, chosen))

        io.rewrite(model, None, build)

        def open_session(part: ir.Model) -> onnxruntime.InferenceSession:
            return session(part, kernel, sess_options=sess_options, **arguments)

        self._open = open_session
        self._prefix = self._open(kept["prefix"]) if kept["prefix"].graph.outputs else None
        self._draw_session = self._open(kept["chunk"].model)
        self._names: parts.ChunkModel = kept["chunk"]
        self._whole_model: ir.Model = kept["whole"]
        self._whole: onnxruntime.InferenceSession | None = None

    def _cut(self, plan: Plan, chosen: Options) -> dict[str, Any]:
        """Remember what is needed of a plan, and return the models made of it."""
        self.targets = choose_tasks(
            plan.stochastic, plan.facts, chosen.task, chosen.statistics, chosen.class_axis, chosen.log_variance
        )
        if chosen.statistics is None:
            self.targets = [_all_statistics(target) for target in self.targets]
        self.notes = [*plan.prepared.notes, *(target.note for target in self.targets if target.note)]
        self.ends = plan.ends
        self.strata = plan.strata
        self._sure_of_ids = len(plan.per_sample) == len(plan.prepared.live)
        self._step = plan.prepared.step.name or ""
        self._inputs = [v for v in plan.prepared.model.graph.inputs if v is not plan.prepared.step]
        self._batch = plan.batch.name or ""
        self._places = {v.name or "": (f.axis, f.block) for v, f in _facts(plan) if f.axis is not None}
        self._peak = _Peak(plan)
        self._boundary = [value.name or "" for value in plan.boundary]
        self._fixed = [value.name or "" for value in plan.fixed]
        whole, prefix = plan.prepared.model.clone(), parts.prefix_model(plan)
        return {"whole": whole, "prefix": prefix, "chunk": parts.chunk_model(plan, self.targets)}

    def predict(
        self,
        inputs: Inputs,
        ids: npt.ArrayLike | None = None,
        *,
        samples: int | None = None,
        tolerance: float | None = None,
        fresh: bool | None = None,
        check: bool | None = None,
        draws: bool | None = None,
    ) -> MCResult:
        """Return the statistics of the draws of a batch.

        Args:
            inputs: an array, or several by name or in the order of the model's inputs; the batch is their first axis.
            ids: an integer >= 0 for each row, int [N], which says where its steps begin; 0, 1, 2, ... by default. The
                same id, input and model give the same draws.
            samples: draws a row; with ``tolerance`` at most that many.
            tolerance: a row stops where the standard error of its mean (of its likeliest class) is below it.
            fresh: draw anew: steps begin somewhere else in each call.
            check: compare with whole runs of the model, draw for draw; it takes their time.
            draws: keep the draws; None keeps them up to 1 MiB.

        Raises:
            SpecError: inputs or ids that do not fit, or all draws were equal.
            VerifyError: ``check`` found a difference.
        """
        tolerance = self._tolerance if tolerance is None else tolerance
        fresh = self._fresh if fresh is None else fresh
        check = self._check if check is None else check
        keep = self._keep if draws is None else draws
        count = self.samples if samples is None else checked.integer(samples, "samples", 1)
        if tolerance is not None:
            tolerance = checked.factor(tolerance, "tolerance")
        given, rows = feeds(inputs, self._inputs, self._batch)
        numbers, first = self._steps(ids, rows, bool(fresh))
        values = dict(given)
        if self._prefix is not None:
            taken = {value.name: given[value.name] for value in self._prefix.get_inputs() if value.name in given}
            values.update(zip((o.name for o in self._prefix.get_outputs()), self._prefix.run(None, taken), strict=True))
        boundary = Rows({name: values[name] for name in self._boundary}, self._places, first)
        if keep is None:
            keep = tolerance is None and self._peak.drawn(rows) * count <= _KEPT
        outputs = self._sum_up(boundary, count, tolerance, bool(keep), self._size)
        made = MCResult(outputs, {name: values[name] for name in self._fixed}, numbers)
        if count > 1:
            self._refuse_equal(made, boundary)
        if check:
            whole = self._whole_session()
            compare(made, self.targets, lambda names, t: whole.run(names, {**given, self._step: first + t}))
        return made

    __call__ = predict

    def _sum_up(
        self, rows: Rows, samples: int, tolerance: float | None, keep: bool, size: Callable[[int], int]
    ) -> dict[str, Statistics]:
        if tolerance is not None and keep:
            raise SpecError("rows stop after different numbers of draws with a tolerance, so that draws cannot be kept")
        wanted = [list(self._names.after[name].values()) for name in self._names.after]
        listed = [name for group in wanted for name in group] + (list(self._names.draws.values()) if keep else [])

        def draw(
            boundary: Mapping[str, Array], first: Array, sums: Sums, start: int, count: int
        ) -> tuple[Sums, dict[str, Array]]:
            feed: dict[str, Any] = dict(boundary)
            feed[self._names.first] = first
            feed[self._names.start], feed[self._names.count] = np.array([start]), np.array([count])
            for output, keys in self._names.before.items():
                for key, name in keys.items():
                    feed[name] = sums[output].get(key, self._zero(output))
            made = dict(zip(listed, self._draw_session.run(listed, feed), strict=True))
            new = {o: {key: made[name] for key, name in keys.items()} for o, keys in self._names.after.items()}
            return new, {o: made[name] for o, name in self._names.draws.items() if keep}

        block = self.strata if self.strata > 1 else _BLOCK
        sums, counts, drawn = run_rounds(draw, rows, self.targets, samples, size, tolerance, block, not self.ends)
        return {
            name: Statistics(name, target.task, target.axis, counts, sums[name], drawn.get(name))
            for target in self.targets
            if (name := target.value.name or "")
        }

    def _size(self, rows: int) -> int:
        """Return how many draws of ``rows`` rows run at once: as many as a cache holds, within the budget."""
        if self.ends:
            return 1
        if self._chunk is not None:
            return self._chunk
        return max(1, min(self._budget, CACHE) // max(1, self._peak.suffix * rows))

    def _zero(self, output: str) -> Array:
        return np.array(0, self._peak.types[output])

    def _steps(self, ids: npt.ArrayLike | None, rows: int, fresh: bool) -> tuple[Array, Array]:
        """Return ids and first steps of the rows."""
        if ids is not None and not self._sure_of_ids:
            raise SpecError(
                f"ids cannot be kept apart: a node draws one mask for the whole batch ({self.ends}); leave them out"
            )
        numbers = np.arange(rows) if ids is None else np.asarray(ids)
        if numbers.shape != (rows,):
            raise SpecError(f"there are {rows} rows and ids of shape {numbers.shape}; give one a row")
        first = first_steps(numbers, self.strata)
        return numbers.astype(np.int64), anew(first, self.strata) if fresh else first

    def _whole_session(self) -> onnxruntime.InferenceSession:
        if self._whole is None:
            self._whole = self._open(self._whole_model)
        return self._whole

    def _refuse_equal(self, result: MCResult, rows: Rows) -> None:
        """Raise SpecError where all draws of all rows were equal: nothing was live."""
        for each in result.outputs.values():
            if "squares" not in each.sums:
                return
            spread, mean = each.epistemic, np.abs(each.mean)
            if (spread > (1e-6 * mean) ** 2).any():
                return
        # One by one, so that equal draws are equal to the last bit.
        alone = self._sum_up(rows, max(2, min(self.samples, 31)), None, True, lambda _: 1)
        if any(each.draws is None or (each.draws != each.draws[:1]).any() for each in alone.values()):
            return
        raise SpecError(
            f"all draws of {next(iter(result.outputs))!r} are equal: the dropout has no effect on it for these inputs "
            "(nothing was dropped, or what was dropped is zero anyway)"
        )


class _Peak:
    """Bytes that a row of the suffix takes."""

    def __init__(self, plan: Plan) -> None:
        self.suffix = cost.peak_bytes(plan.suffix, plan.facts, {})
        doubles = int(ir.DataType.DOUBLE)
        self.types = {
            v.name or "": np.float64 if plan.facts[v].dtype == doubles else np.float32 for v in plan.stochastic
        }
        self._row = sum(cost.bytes_of(plan.facts[value], {}) for value in plan.stochastic)

    def drawn(self, rows: int) -> int:
        """Return the bytes of a draw of the outputs."""
        return self._row * rows


def _facts(plan: Plan) -> Iterable[tuple[ir.Value, Fact]]:
    return ((value, plan.facts[value]) for value in plan.boundary)


def _all_statistics(target: Target) -> Target:
    """Return a target whose sums give every statistic."""
    return Target(
        target.value, target.task, target.given, target.axis, STATISTICS[target.kind], target.log_variance, target.note
    )
