"""Compare a framework's training-mode forward pass with an ONNX model's, and say at which layer and step they part.

The framework's half is in a module a framework, which is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.runtime.session import Kernel
from onnx_spatialdrop.verify.framework import Array, FrameworkRun, FrameworkStep, Layer
from onnx_spatialdrop.verify.model import RUNTIMES, OnnxRun, Runtime
from onnx_spatialdrop.verify.progress import Progress
from onnx_spatialdrop.verify.result import Divergence, LayerResult, OutputResult, Verification

__all__ = [
    "RUNTIMES",
    "Divergence",
    "FrameworkRun",
    "FrameworkStep",
    "Layer",
    "LayerResult",
    "OutputResult",
    "Verification",
    "verify",
]

#: A package in which one of the model's classes lives -> the module and the class that run it. Keras comes first: with
#: its torch backend a Keras model is a torch module, too.
_ADAPTERS: Final = {"keras": ("onnx_spatialdrop.verify.keras", "KerasRun")}

Inputs = Array | Sequence[Array] | Mapping[str, Array]


def verify(
    framework_model: Any,
    onnx_model: io.Source,
    inputs: Inputs,
    steps: int = 5,
    *,
    first_step: int = 0,
    tolerance: float | None = None,
    kernel: Kernel = "auto",
    runtime: Runtime = "onnxruntime",
) -> Verification:
    """Compare a framework's model with its export while dropout is on, step after step.

    In each step the framework makes a forward pass in which dropout trains and nothing else does (batch norm is in
    inference mode, as exports have it), and the ONNX model runs with training_mode true on the same inputs. Every
    layer's mask must be equal bit for bit; what it keeps must be X times the framework's scale to 4 units in the last
    place, and what it drops zero. Outputs may differ by ``tolerance`` times their largest value.

    Args:
        framework_model: a FrameworkRun.
        onnx_model: a path, an onnx.ModelProto or an ir.Model with SpatialDropout nodes; it is not changed.
        inputs: the model's inputs: an array, several in the order of the model's inputs, or by name.
        steps: how many passes to compare, 1 or more.
        first_step: what the first pass feeds to the model's input ``step``.
        tolerance: what outputs may differ by, relative to their largest value; by default 1e-5 for float32, 5e-3 for
            float16, 4e-2 for bfloat16, 1e-12 for float64.
        kernel: of ONNX Runtime: "auto", "native", "python" or "body"; see session.
        runtime: "onnxruntime", "reference" (onnx's ReferenceEvaluator) or "openvino".

    Returns:
        A Verification: true where nothing parts; its text is a table of all layers.

    Raises:
        VerifyError: what makes a comparison impossible: a model without dropout, layers that do not match by name,
            inputs that do not fit, a runtime that is missing or fails.
        SpatialDropError: the model cannot be had in that runtime.
    """
    if steps < 1:
        raise VerifyError(f"steps is {steps}; it must be 1 or more")
    framework = _adapter(framework_model)
    model = OnnxRun(onnx_model, kernel, runtime)
    named = _named(inputs, model.inputs)
    framework.begin(model.layers)
    progress = Progress(model, tolerance)
    for step in range(first_step, first_step + steps):
        done = framework.run(named, step)
        _check(done, model)
        ran = model.run(named, np.array([step]) if done.step is None else done.step, done.drawn or done.masks)
        progress.add(step, done, ran.outputs, ran.seen)
    return progress.result(framework.framework, steps)


def _adapter(framework_model: Any) -> FrameworkRun:
    if isinstance(framework_model, FrameworkRun):
        return framework_model
    packages = {base.__module__.split(".")[0] for base in type(framework_model).__mro__}
    for package, (module, name) in _ADAPTERS.items():
        if package in packages:
            made: FrameworkRun = getattr(import_module(module), name)(framework_model)
            return made
    kind = f"{type(framework_model).__module__}.{type(framework_model).__qualname__}"
    raise VerifyError(f"cannot run a {kind} object; give an object with begin and run, as FrameworkRun has them")


def _named(inputs: Inputs, names: Sequence[str]) -> dict[str, Array]:
    if isinstance(inputs, Mapping):
        given = {str(name): np.asarray(value) for name, value in inputs.items()}
        if set(given) != set(names):
            raise VerifyError(f"inputs are {', '.join(given) or 'none'}; the model takes {', '.join(names) or 'none'}")
        return {name: given[name] for name in names}
    arrays = [inputs] if hasattr(inputs, "shape") else list(inputs)
    if len(arrays) != len(names):
        raise VerifyError(f"got {len(arrays)} inputs; the model takes {len(names)}: {', '.join(names)}")
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def _check(step: FrameworkStep, model: OnnxRun) -> None:
    ours, theirs = [layer.name for layer in model.layers], list(step.masks)
    missing, extra = [n for n in ours if n not in step.masks], [n for n in theirs if n not in ours]
    if missing or extra:
        said = [f"the framework has no {', '.join(map(repr, missing))}"] if missing else []
        said += [f"the model has no {', '.join(map(repr, extra))}"] if extra else []
        raise VerifyError(
            f"layers do not match by name: {'; '.join(said)}; the model's layers are {', '.join(map(repr, ours))}, "
            f"the framework's {', '.join(map(repr, theirs)) or 'none'}"
        )
    if len(step.outputs) != len(model.outputs):
        raise VerifyError(
            f"the framework returns {len(step.outputs)} outputs, the model {len(model.outputs)}: "
            f"{', '.join(model.outputs)}"
        )
