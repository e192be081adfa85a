"""The Python kernel: a mask-only op for onnxruntime-extensions. It never raises, since that would end the process."""

from __future__ import annotations

import itertools
import json
import logging
import platform
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import KernelError
from onnx_spatialdrop.operator import philox, spec, stratified
from onnx_spatialdrop.passes.lower import MASKS_OP

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["counters", "draw", "missing_reason", "refusals", "register"]

_LOG = logging.getLogger("onnx_spatialdrop")

#: Numbers for the counters of negative steps: a node of a session gets one that no other node of the process has.
counters: Iterator[int] = itertools.count(1)
_fresh: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
_defined = False

#: Session options remember nothing that can be asked for, except entries like this one.
_MARK = "onnx_spatialdrop.extensions_registered"

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def missing_reason() -> str | None:
    """Return why the Python kernel cannot be used here, or None."""
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install onnxruntime)"
    if find_spec("onnxruntime_extensions") is None:
        if (sys.platform, platform.machine()) == ("win32", "ARM64"):
            return "onnxruntime-extensions has no package for Windows on Arm; use kernel='native' or kernel='body'"
        return "onnxruntime-extensions is not installed (pip install onnxruntime-extensions)"
    return None


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Let sessions made with ``session_options`` run models that LowerPass has lowered; a second call does nothing.

    Options that onnxruntime-extensions' library has been registered with by other means need no second registration:
    ONNX Runtime refuses a library that is registered twice.

    Raises:
        KernelError: onnxruntime-extensions is missing.
    """
    reason = missing_reason()
    if reason is not None:
        raise KernelError(f"the Python kernel cannot be used: {reason}")
    import onnxruntime_extensions

    _define_op()
    if not _is_marked(session_options):
        session_options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
        session_options.add_session_config_entry(_MARK, "1")


def _is_marked(session_options: onnxruntime.SessionOptions) -> bool:
    try:
        return bool(session_options.get_session_config_entry(_MARK) == "1")
    except RuntimeError:  # no such entry
        return False


def _define_op() -> None:
    global _defined
    if _defined:
        return
    from onnxruntime_extensions import PyCustomOpDef, onnx_op

    kind = PyCustomOpDef
    onnx_op(
        op_type=MASKS_OP,
        inputs=[kind.dt_int64, kind.dt_bool, kind.dt_int64],
        outputs=[kind.dt_bool],
        attrs={"counter": kind.dt_int64, "nodes": kind.dt_string},
    )(draw)
    _defined = True


@contextmanager
def refusals() -> Iterator[list[str]]:
    """Collect what nodes refuse inside the context, which ONNX Runtime's own error does not say, instead of logging it.

    It sees the refusals of all threads.
    """
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    propagates, _LOG.propagate = _LOG.propagate, False
    _LOG.addHandler(listener)
    try:
        yield said
    finally:
        _LOG.removeHandler(listener)
        _LOG.propagate = propagates


def draw(
    sizes: npt.NDArray[np.int64],
    training_mode: npt.NDArray[np.bool_],
    step: npt.NDArray[np.int64],
    **attributes: Any,
) -> npt.NDArray[np.bool_]:
    """Return which entries are dropped, row by row those of all nodes; on any fault, log it and return one too many.

    Args:
        sizes: the rows of the masks and the entries a row of each node, int64 (1 + nodes,).
        training_mode: bool, one element.
        step: int64, one element or one a row.
        attributes: ``counter``, which counter a negative step advances; ``nodes``, for each node, in JSON, its seed,
            threshold, strata, rng, NumPy's name of X's type, and what error messages call it.
    """
    try:
        rows, *lengths = sizes.tolist()
        return _draw(rows, lengths, bool(training_mode.reshape(())), step.reshape(-1), **attributes)
    except Exception as error:  # noqa: BLE001 - whatever it is, letting it out would abort the process
        _LOG.error("%s", error)
        fitting = int(sizes[0] * sizes[1:].sum()) if isinstance(sizes, np.ndarray) else 0
        return np.zeros(fitting + 1, np.bool_)


def _draw(
    rows: int, lengths: list[int], training: bool, step: npt.NDArray[np.int64], counter: int, nodes: str
) -> npt.NDArray[np.bool_]:
    dropped = np.zeros((rows, sum(lengths)), np.bool_)
    facts = _facts(nodes)
    spec.check_step(step.tolist(), (rows,), rows, facts[0][-1])
    if not training or not dropped.size:
        return dropped.reshape(-1)
    fresh = next(_fresh[counter]) if step.size == 1 and step[0] < 0 else None
    share = rows // step.size  # of the rows of a mask, which one step fills
    counts = tuple(share * length for length in lengths)
    ends = np.cumsum(lengths)
    together = [fact[3] == "philox" and fact[2] == 1 for fact in facts]
    if any(together):
        steps = step if fresh is None else np.array([spec.fresh_step(int(step[0]), fresh)], np.int64)
        begins, drawn = _together(nodes, counts, steps)
    for place, (seed, threshold, strata, rng, dtype, _) in enumerate(facts):
        if together[place]:
            mine = drawn[:, begins[place] : begins[place] + counts[place]]
        else:
            steps = step if fresh is None else np.array([spec.fresh_step(int(step[0]), fresh, strata)], np.int64)
            kind = spec.DTYPES[dtype]
            mine = ~stratified.kept_rows(seed, steps, counts[place], threshold, strata=strata, rng=rng, dtype=kind)
        dropped[:, ends[place] - lengths[place] : ends[place]] = mine.reshape(rows, lengths[place])
    return dropped.reshape(-1)


@lru_cache(maxsize=1024)
def _facts(nodes: str) -> list[list[Any]]:
    found: list[list[Any]] = json.loads(nodes)
    return found


def _together(
    nodes: str, counts: tuple[int, ...], steps: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where each node's entries begin in a row, and which entries of all nodes that draw so are dropped."""
    begins, blocks, keys, limits = _tables(nodes, counts)
    counter = np.empty((steps.size, blocks.size, 4), np.uint64)
    counter[..., 0], counter[..., 1] = blocks & _LOW, blocks >> _HALF
    wide = steps.astype(np.uint64).reshape(-1, 1)
    counter[..., 2], counter[..., 3] = wide & _LOW, wide >> _HALF
    words = philox.philox4x32(counter, keys)
    return begins, ((words >> np.uint32(8)) < limits[:, np.newaxis]).reshape(steps.size, -1)


@lru_cache(maxsize=64)
def _tables(nodes: str, counts: tuple[int, ...]) -> tuple[npt.NDArray[Any], ...]:
    """Return where each node's entries begin in a row, and for each block its number, key and threshold."""
    mine = [rng == "philox" and strata == 1 for _, _, strata, rng, _, _ in _facts(nodes)]
    taken = np.array([(count + 3) // 4 if own else 0 for count, own in zip(counts, mine, strict=True)], np.int64)
    begins = np.cumsum(taken) - taken
    blocks = np.arange(taken.sum()) - np.repeat(begins, taken)
    seeds = np.array([seed % 2**64 for seed, *_ in _facts(nodes)], np.uint64)
    keys = np.repeat(np.stack([seeds & _LOW, seeds >> _HALF], axis=-1), taken, axis=0)
    limits = np.repeat(np.array([fact[1] for fact in _facts(nodes)], np.uint32), taken)
    return 4 * begins, blocks.astype(np.uint64), keys, limits
