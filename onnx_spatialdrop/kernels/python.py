"""The Python kernel: a mask-only op for onnxruntime-extensions. It never raises, since that would end the process."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import KernelError
from onnx_spatialdrop.operator import spec, stratified
from onnx_spatialdrop.passes.lower import MASK_OP

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

# A mask of one entry that is to become a tensor of two: Reshape refuses it.
_REFUSED = (np.ones(1, np.bool_), np.array([2], np.int64))


def missing_reason() -> str | None:
    """Return why the Python kernel cannot be used here, or None."""
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install onnxruntime)"
    if find_spec("onnxruntime_extensions") is None:
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
        op_type=MASK_OP,
        inputs=[kind.dt_int64, kind.dt_int64, kind.dt_bool, kind.dt_int64],
        outputs=[kind.dt_bool, kind.dt_int64],
        attrs={
            **dict.fromkeys(("seed", "strata", "threshold", "counter", "full"), kind.dt_int64),
            **dict.fromkeys(("rng", "dtype", "node"), kind.dt_string),
        },
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
    shape: npt.NDArray[np.int64],
    axes: npt.NDArray[np.int64],
    training_mode: npt.NDArray[np.bool_],
    step: npt.NDArray[np.int64],
    **attributes: Any,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return the flat mask and its shape; on any fault, log it and return a pair that does not fit together.

    Args:
        shape: shape of X, int64 (rank,).
        axes: axes along which an entry is shared, int64 (k,).
        training_mode: bool, one element.
        step: int64, one element or one a sample.
        attributes: ``seed``; ``strata``; ``threshold``, as spec.Attributes.threshold has it; ``counter``, which counter
            a negative step advances; ``full``, whether an idle mask is read, so that it must have its full shape;
            ``rng``; ``dtype``, NumPy's name of X's type; ``node``, for error messages.
    """
    try:
        return _draw(shape.tolist(), axes.tolist(), bool(training_mode.reshape(())), step.reshape(-1), **attributes)
    except Exception as error:  # noqa: BLE001 - whatever it is, letting it out would abort the process
        _LOG.error("%s", error)
        return _REFUSED


def _draw(
    shape: list[int],
    axes: list[int],
    training: bool,
    step: npt.NDArray[np.int64],
    seed: int,
    strata: int,
    threshold: int,
    counter: int,
    full: int,
    rng: str,
    dtype: str,
    node: str,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    masked = spec.mask_shape(shape, axes, node)
    spec.check_step(step.tolist(), masked, shape[0], node)
    if not training:
        idle = masked if full else (1,) * len(shape)
        return np.ones(int(np.prod(idle)), np.bool_), np.array(idle, np.int64)
    if step.size == 1 and step[0] < 0:
        step = np.array([spec.fresh_step(int(step[0]), next(_fresh[counter]), strata)], np.int64)
    row = int(np.prod(masked, dtype=np.int64)) // max(step.size, 1)
    kept = stratified.kept_rows(seed, step, row, threshold, strata=strata, rng=rng, dtype=spec.DTYPES[dtype])
    return kept.reshape(-1), np.array(masked, np.int64)
