"""Draws two ways: whole runs with a step a sample, which define what is right, and the halves of a cut model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.montecarlo.batches import prepared_plan
from onnx_spatialdrop.montecarlo.engine import Engine
from onnx_spatialdrop.montecarlo.plan import Plan

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session that says nothing of runs that fail, which here some have to."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return sd.session(model, sess_options=options)


def plan_of(model: onnx.ModelProto) -> Plan:
    """Return the cut of a model, which is not changed."""
    return prepared_plan(io.from_proto(model))


def whole_runs(model: onnx.ModelProto, feeds: Feeds, first: Array, draws: int, strata: int = 1) -> Array:
    """Return the first output of ``draws`` runs, [T, N, ...]; run t has the steps ``first + t``."""
    session = open_session(sd.stratify(model, strata=strata))
    on = {**feeds, "training_mode": np.array(True)}
    return np.stack([session.run(None, {**on, "step": first + t})[0] for t in range(draws)])


def cut_runs(model: onnx.ModelProto, feeds: Feeds, first: Array, draws: int, chunk: int = 0) -> Array:
    """Return the same by a prefix and chunks of draws laid behind each other, where that is proven."""
    plan = plan_of(model)
    engine = Engine(plan, [], lambda part: open_session(ir.to_proto(part)))
    rows, _ = engine.prepare(feeds, first)
    return engine.draw(rows, draws, (chunk or draws) if plan.proven else 1)[plan.stochastic[0].name or ""]
