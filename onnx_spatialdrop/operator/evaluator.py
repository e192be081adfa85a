"""The operator for onnx's ReferenceEvaluator: the NumPy reference behind onnx's own interface."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun

from onnx_spatialdrop.operator import reference, spec

__all__ = ["SpatialDropout"]


class SpatialDropout(OpRun):
    """Run SpatialDropout nodes: ``onnx.reference.ReferenceEvaluator(model, new_ops=[SpatialDropout])``.

    A single ``step`` of -1 counts 0, 1, 2, ... over the node's training runs since the evaluator was made; other
    negative steps are sequences of their own (see spec.fresh_step).
    """

    op_domain = spec.DOMAIN

    def __init__(self, onnx_node: Any, run_params: dict[str, Any], schema: Any = None) -> None:
        super().__init__(onnx_node, run_params, schema)
        self._fresh = itertools.count()

    def _run(
        self,
        X: npt.NDArray[Any],
        training_mode: npt.NDArray[np.bool_],
        step: npt.NDArray[np.int64],
        axes: Sequence[int] | None = None,
        ratio: float | None = None,
        seed: int | None = None,
        scale: float | None = None,
        rng: str | None = None,
        strata: int | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        name = f"node {self.onnx_node.name!r}" if self.onnx_node.name else spec.OP_TYPE
        if ratio is None or seed is None:
            raise ValueError(f"{name}: attributes ratio and seed are required")
        training = bool(np.asarray(training_mode).reshape(()))
        if training and step.size == 1 and int(step.reshape(())) < 0:
            step = np.array([spec.fresh_step(int(step.reshape(())), next(self._fresh), strata or 1)], np.int64)
        # onnx's evaluator drops an empty INTS attribute, which means that no axis is shared.
        return reference.spatial_dropout(
            X,
            list(axes or ()),
            ratio,
            seed,
            step,
            training,
            scale or 0.0,
            rng=rng or "philox",
            strata=1 if strata is None else strata,
            where=name,
        )
