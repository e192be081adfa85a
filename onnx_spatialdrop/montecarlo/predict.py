"""Monte Carlo dropout from Python: two sessions, one for what runs once and one for chunks of draws.

It holds sessions and decides how many draws run at once; what is drawn the model says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop import arguments as checked
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo import dataset, equal_draws
from onnx_spatialdrop.montecarlo.batches import prepared_plan
from onnx_spatialdrop.montecarlo.drawn import as_probabilities, sums_of
from onnx_spatialdrop.montecarlo.engine import Engine
from onnx_spatialdrop.montecarlo.feeding import Inputs, anew, feeds, first_steps
from onnx_spatialdrop.montecarlo.onefile import BUDGET, CACHE
from onnx_spatialdrop.montecarlo.options import STRATA, Layers, options
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.result import MCResult, Statistics
from onnx_spatialdrop.montecarlo.rounds import Rows, Sums, run_rounds
from onnx_spatialdrop.montecarlo.summing import LEAST
from onnx_spatialdrop.montecarlo.tasks import choose_tasks
from onnx_spatialdrop.montecarlo.whole import compare
from onnx_spatialdrop.runtime.session import Kernel, session
from onnx_spatialdrop.storage import results

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
        meets: where samples may meet in the model, so that a row's numbers depend on those beside it; "" where it is
            proven that they do nowhere.
        refuses_equal: predict raises an error where all draws of all rows are equal, as is right for a whole data set.
            Set it to False where a call has some rows of many, blank ones perhaps.
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
        self.samples = chosen.samples
        self._tolerance, self._fresh, self._check, self._keep = tolerance, fresh, check, draws
        self._budget = checked.integer(budget, "budget", 1)
        self._chunk = None if chunk is None else checked.integer(chunk, "chunk", 1)
        self.refuses_equal = True

        def cut(working: ir.Model) -> Plan:
            return prepared_plan(working, chosen.layers, number, chosen.strata)

        plan = io.rewrite(model, None, cut)[1]
        self.targets = choose_tasks(
            plan.stochastic, plan.facts, chosen.task, chosen.statistics, chosen.class_axis, chosen.log_variance
        )
        if chosen.statistics is None:
            self.targets = [target.with_all_statistics() for target in self.targets]
        self.notes = [*plan.prepared.notes, *(target.note for target in self.targets if target.note)]
        self.ends, self.meets = plan.ends, plan.meets
        self.strata = plan.strata
        self._sure_of_ids = len(plan.per_sample) == len(plan.prepared.live)
        self._inputs = [value for value in plan.prepared.model.graph.inputs if value is not plan.prepared.step]
        self._batch = plan.batch.name or ""
        self._engine = Engine(
            plan, self.targets, lambda part: session(part, kernel, sess_options=sess_options, **arguments)
        )

    @property
    def inputs(self) -> list[str]:
        """The names of the model's inputs."""
        return [value.name or "" for value in self._inputs]

    @property
    def batch(self) -> str:
        """The input whose first axis is the batch."""
        return self._batch

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
        boundary, fixed = self._engine.prepare(given, first)
        if keep is None:
            keep = tolerance is None and self._engine.row * rows * count <= _KEPT
        if tolerance is not None and keep:
            raise SpecError("rows stop after different numbers of draws with a tolerance, so that draws cannot be kept")
        outputs = self._kept(boundary, count) if keep else self._summed(boundary, count, tolerance)
        if self.refuses_equal and count > 1:
            # As good as equal: draw one by one, so that equal draws are equal in each bit.
            few = max(2, min(self.samples, 31))
            equal_draws.refuse(outputs, lambda: self._engine.draw(boundary, few, 1).values())
        made = MCResult(outputs, fixed, numbers)
        if check:
            compare(made, self.targets, lambda names, t: self._engine.whole(given, names, first + t))
        return made

    __call__ = predict

    def predict_dataset(
        self,
        batches: Iterable[Inputs],
        ids: Iterable[npt.ArrayLike] | None = None,
        *,
        folder: io.PathLike | None = None,
        progress: bool = True,
        **arguments: Any,
    ) -> MCResult:
        """Return the statistics of all rows of many batches, in their order; draws are not kept.

        Args:
            batches: what predict takes, one batch after the other.
            ids: the ids of each batch, int [N]; 0, 1, 2, ... over all batches by default. None twice.
            folder: where each batch's sums are written when they are there. Rows that are in it are not drawn again,
                so that a run that was stopped goes on, also with other batches; another model is refused.
            progress: show a bar on stderr.
            arguments: of predict, but for ids and draws.

        Raises:
            SpecError: as predict does; an id twice; no batches; a folder with the results of another job.
            ModelFileError: a folder that cannot be read or written.
        """
        if arguments.get("fresh", self._fresh) and folder is not None:
            raise SpecError("fresh draws cannot go on where others stopped; leave folder or fresh out")
        store = None if folder is None else self._results(checked.path(folder, "folder"), arguments)
        parts = [] if store is None else [results.read(part) for part in store.parts()]
        done = {int(each) for part in parts for each in part["ids"]}
        order: list[Array] = []
        one = copy.copy(self)
        one.refuses_equal = False  # a batch of blank rows is no reason to stop
        with dataset.bar(progress) as advance:
            for batch, numbers in dataset.numbered(
                batches, ids, lambda each: feeds(each, self._inputs, self._batch)[1]
            ):
                given, rows = feeds(batch, self._inputs, self._batch)
                if numbers.shape != (rows,):
                    raise SpecError(f"there are {rows} rows and ids of shape {numbers.shape}; give one a row")
                new = np.array([int(each) not in done for each in numbers])
                order.append(numbers)
                if new.any():
                    some = self._engine.rows_of(given, np.flatnonzero(new))
                    part = dataset.part_of(one.predict(some, numbers[new], draws=False, **arguments))
                    parts.append(part)
                    if store is not None:
                        store.write(part["ids"], part)
                advance(rows)
        if not parts or not order:
            raise SpecError("there are no batches")
        every = np.concatenate(order)
        if len(np.unique(every)) != len(every):
            raise SpecError("an id stands for two rows; ids must differ")
        like = {target.value.name or "": (target.task, target.axis) for target in self.targets}
        result = dataset.joined(parts, every, like)
        if self.refuses_equal and result.samples.max() > 1:
            equal_draws.refuse(result.outputs)
        return result

    def _results(self, folder: Path, arguments: Mapping[str, Any]) -> results.Results:
        settings = {"samples": self.samples, "tolerance": self._tolerance} | dict(arguments)
        return results.Results(
            folder, {"model": self._engine.fingerprint(), "settings": repr(sorted(settings.items()))}
        )

    def _kept(self, rows: Rows, samples: int) -> dict[str, Statistics]:
        """Draw, and keep the draws."""
        raw = self._engine.draw(rows, samples, self._size(len(rows.first)))
        counts = np.full(len(rows.first), samples, np.int64)
        made = {}
        for target in self.targets:
            name = target.value.name or ""
            p = as_probabilities(target, raw[name], 1)
            noise = None if target.log_variance is None else raw[target.log_variance.name or ""]
            made[name] = Statistics(name, target.task, target.axis, counts, sums_of(target, p, noise), p)
        return made

    def _summed(self, rows: Rows, samples: int, tolerance: float | None) -> dict[str, Statistics]:
        """Draw, and keep sums alone."""

        def draw(some: Rows, sums: Sums, start: int, end: int) -> Sums:
            return self._engine.add(some, sums, start, end, self._size(len(some.first)))

        block = self.strata if self.strata > 1 else _BLOCK
        sums, counts = run_rounds(draw, rows, self.targets, samples, tolerance, block, not self.ends)
        names = {target.value.name or "": target for target in self.targets}
        return {name: Statistics(name, each.task, each.axis, counts, sums[name]) for name, each in names.items()}

    def _size(self, rows: int) -> int:
        """Return how many draws of ``rows`` rows run at once: as many as a cache holds, within the budget."""
        if self.ends:
            return 1
        if self._chunk is not None:
            return self._chunk
        row = self._engine.peak * rows
        return max(1, min(self._budget, CACHE) // row, min(LEAST, self._budget // row))

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
