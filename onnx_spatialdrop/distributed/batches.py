"""Monte Carlo dropout on batches of rows with ids: arrays in a dict in, arrays in a dict out.

It knows no engine. Ray Data's map_batches, Spark's mapInPandas, Dask's map_partitions and Beam's batches call it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo import MCDropout

if TYPE_CHECKING:
    from onnx_spatialdrop.montecarlo.result import MCResult

__all__ = ["STATISTICS", "MonteCarloBatches"]

Array = npt.NDArray[Any]
Batch = dict[str, Array]

#: What can be asked for; each is an attribute of a result.
STATISTICS: Final = (
    "mean", "variance", "std", "entropy", "expected_entropy", "mutual_information", "variation_ratio", "prediction",
    "epistemic", "aleatoric",
)  # fmt: skip
_BY_TASK: Final[dict[str, tuple[str, ...]]] = {"regression": ("mean", "variance")}
_DEFAULT: Final = ("prediction", "mean", "entropy", "mutual_information")
#: Rows of a run, and the bytes of inputs that they may have together.
_ROWS: Final = 32
_BYTES: Final = 4 << 20


class MonteCarloBatches:
    """Computes the statistics of Monte Carlo dropout for rows that carry ids.

    A row's numbers depend on its id and its inputs alone, to the last bit on one kind of processor: not on the batch
    that it came in, nor on how many workers there are. For that, every run has the same number of rows, the last one of
    a batch filled up; where it is not proven that samples do not meet in the model, every run has one.

    The session opens with the first call, so that an instance travels to a worker as a pickle.
    """

    def __init__(
        self,
        model: io.PathLike,
        *,
        inputs: str | Mapping[str, str],
        id: str = "id",  # noqa: A002 - what the column is called everywhere
        statistics: Sequence[str] | None = None,
        keep: Sequence[str] = (),
        samples: int = 31,
        rows: int | None = None,
        threads: int = 1,
        **options: Any,
    ) -> None:
        """Take the settings; nothing is opened.

        Args:
            model: the path of a model, which every worker can read.
            inputs: the column with the input; or {column: input of the model} for several.
            id: the column with the rows' ids: integers of 0 or more, each once in the whole data. They are the rows'
                own, and never counted by an engine: a row that is tried again has to draw what it drew.
            statistics: columns of the result, of STATISTICS; by default those that the task has. With several outputs
                a column is called "<output>_<statistic>".
            keep: columns that are handed through.
            samples: draws a row.
            rows: rows of a run; by default up to 32, fewer where inputs are large, and 1 where samples may meet.
            threads: threads of the session. An engine runs many workers on one machine, and by itself every session
                would take all cores.
            options: further arguments of MCDropout.

        Raises:
            TypeError, SpecError: an argument of another type, or out of range.
        """
        self._model = str(arguments.path(model, "model"))
        self._inputs = dict(inputs) if isinstance(inputs, Mapping) else {arguments.string(inputs, "inputs"): None}
        self._id = arguments.string(id, "id")
        self._statistics = None if statistics is None else arguments.strings(statistics, "statistics")
        for name in self._statistics or ():
            arguments.choice(name, "statistics", STATISTICS)
        self._keep = arguments.strings(keep, "keep")
        self._samples = arguments.integer(samples, "samples", 2)
        self._rows = None if rows is None else arguments.integer(rows, "rows", 1)
        self._threads = arguments.integer(threads, "threads", 1)
        self._options = options
        self._mc: MCDropout | None = None
        self._sizes: dict[str, tuple[int, ...]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on besides the model's content: for those who store results."""
        return {
            "samples": self._samples,
            "statistics": self._statistics,
            "inputs": self._inputs,
            "rows": self._rows,
            "options": {name: repr(value) for name, value in sorted(self._options.items())},
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mc": None}

    @property
    def model(self) -> str:
        """The path of the model."""
        return self._model

    @property
    def id(self) -> str:
        """The column with the ids."""
        return self._id

    def __call__(self, batch: Mapping[str, npt.ArrayLike]) -> Batch:
        """Return the statistics of a batch's rows, as a dict of arrays with the ids in it.

        Args:
            batch: columns by name, of N rows each. A column of objects or of lists is stacked; integers become the
                model's type, and flat rows get the shape that the model gives its inputs.

        Raises:
            SpecError: a column is missing, ids are no integers, negative, or twice in the batch; several rows a run
                where samples may meet.
        """
        ids = self._ids(batch)
        columns = {column: _stacked(self._column(batch, column)) for column in self._inputs}
        result: dict[str, list[Array]] = {}
        for count, padded in self._runs(columns, len(ids)):
            made = self._open().predict(self._feeds(columns, padded), ids[padded])
            for name, values in self._read(made).items():
                result.setdefault(name, []).append(values[:count])
        kept = {name: _stacked(self._column(batch, name)) for name in self._keep}
        return {self._id: ids, **kept, **{name: np.concatenate(parts) for name, parts in result.items()}}

    def _runs(self, columns: Batch, total: int) -> Iterator[tuple[int, Array]]:
        """Yield the rows of each run, and how many of them count; the rest fills it up."""
        size, meets = self._rows, self._open().meets
        if size is None:
            # By the entries, and not the bytes, which differ with how an engine keeps numbers.
            width = 4 * sum(column[:1].size for column in columns.values())
            size = 1 if meets else max(1, min(_ROWS, _BYTES // max(1, width)))
        if size > 1 and meets:
            raise SpecError(f"rows is {size}, and it is not proven that samples do not meet: {meets}; rows=1 is right")
        for start in range(0, total, size):
            taken = np.arange(start, min(start + size, total))
            yield len(taken), np.resize(taken, size)

    def _open(self) -> MCDropout:
        if self._mc is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = self._threads
            self._mc = MCDropout(self._model, self._samples, sess_options=options, **self._options)
            self._mc.refuses_equal = False  # one batch of blank rows is no reason to stop
            self._sizes = {value.name or "": _sizes(value) for value in io.load(self._model).graph.inputs}
        return self._mc

    def _feeds(self, columns: Batch, rows: Array) -> Any:
        mc = self._open()
        if None in self._inputs.values() and len(mc.inputs) > 1:
            raise SpecError(f"the model has several inputs, {', '.join(mc.inputs)}; give inputs={{column: input, ...}}")
        named = {name or mc.inputs[0]: columns[column][rows] for column, name in self._inputs.items()}
        return {name: _shaped(array, self._sizes.get(name, ())) for name, array in named.items()}

    def _read(self, made: MCResult) -> Batch:
        columns = {}
        for output, each in made.items():
            prefix = f"{output}_" if len(made) > 1 else ""
            for name in self._statistics or _BY_TASK.get(each.task, _DEFAULT):
                columns[prefix + name] = np.asarray(getattr(each, name))
        return columns

    def _column(self, batch: Mapping[str, npt.ArrayLike], name: str) -> npt.ArrayLike:
        if name not in batch:
            raise SpecError(f"the batch has no column {name!r}; it has {', '.join(map(repr, batch))}")
        return batch[name]

    def _ids(self, batch: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.int64]:
        given = np.asarray(self._column(batch, self._id))
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise SpecError(f"column {self._id!r} is of type {given.dtype}; ids are integers of 0 or more, one a row")
        ids = given.astype(np.int64)
        if len(np.unique(ids)) != len(ids):
            raise SpecError(f"column {self._id!r} has an id twice: two rows would draw the same masks")
        return ids


def _stacked(column: npt.ArrayLike) -> Array:
    array = _dense(column)
    return array.astype(np.int64) if array.dtype.kind == "u" and array.dtype.itemsize < 8 else array


def _dense(column: npt.ArrayLike) -> Array:
    """Return an array of what may hold arrays, or lists of lists, as Arrow gives them."""
    array = np.asarray(column)
    if array.dtype != object or not len(array) or isinstance(array.flat[0], str):
        return array
    return np.stack([_dense(entry) for entry in array])


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """Return the sizes of a row of an input; nothing where the model leaves some open."""
    sizes = () if value.shape is None else tuple(size for size in value.shape[1:] if isinstance(size, int))
    return sizes if value.shape is not None and len(sizes) == len(value.shape) - 1 else ()


def _shaped(rows: Array, sizes: tuple[int, ...]) -> Array:
    """Return flat rows in the model's shape; engines keep lists of numbers."""
    flat = len(sizes) > 1 and rows.ndim == 2 and rows.shape[1] == math.prod(sizes)
    return rows.reshape(-1, *sizes) if flat else rows
