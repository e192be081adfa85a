"""onnxruntime-training on artifacts that were written: what its tests share."""

from __future__ import annotations

from typing import Any

from onnx_spatialdrop.training import Artifacts


def start(made: Artifacts) -> tuple[Any, Any, Any]:
    import onnxruntime
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    state = CheckpointState.load_checkpoint(str(made.checkpoint))
    module = Module(str(made.training), state, str(made.evaluation), session_options=options)
    return state, module, None if made.optimizer is None else Optimizer(str(made.optimizer), module)
