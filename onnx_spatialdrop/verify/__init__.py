"""Compare a framework's training-mode forward pass with an ONNX model's, and say at which layer and step they part.

The framework's half is in a module a framework, which is imported when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.runtime.session import Kernel
from onnx_spatialdrop.verify import compare, recording
from onnx_spatialdrop.verify.expose import expose
from onnx_spatialdrop.verify.framework import Array, FrameworkRun, FrameworkStep, Layer, feeds
from onnx_spatialdrop.verify.model import RUNTIMES, OnnxRun, Runtime
from onnx_spatialdrop.verify.progress import Progress
from onnx_spatialdrop.verify.recording import Recording
from onnx_spatialdrop.verify.result import Divergence, LayerResult, OutputResult, Verification

__all__ = [
    "RUNTIMES",
    "Divergence",
    "FrameworkRun",
    "FrameworkStep",
    "Layer",
    "LayerResult",
    "OutputResult",
    "Recording",
    "Verification",
    "record",
    "verify",
]

#: A package in which one of the model's classes lives -> the module and the class that run it. Keras comes first: with
#: its torch backend a Keras model is a torch module, too.
_ADAPTERS: Final = {
    "keras": ("onnx_spatialdrop.verify.keras", "KerasRun"),
    "torch": ("onnx_spatialdrop.verify.torch", "TorchRun"),
}

#: One number, as Keras and torch count: nobody waits for more.
_MOST_STEPS: Final = 2**31 - 1

Inputs = Array | Sequence[Array] | Mapping[str, Array]


def verify(
    framework_model: Any,
    onnx_model: io.Source,
    inputs: Inputs | None = None,
    steps: int | None = None,
    *,
    first_step: int | None = None,
    tolerance: float | None = None,
    kernel: Kernel = "auto",
    runtime: Runtime = "onnxruntime",
) -> Verification:
    """Compare a framework's model with its export while dropout is on, step after step.

    In each step the framework makes a forward pass in which dropout trains and nothing else does (batch norm is in
    inference mode, as exports have it), and the ONNX model runs with training_mode true on the same inputs. Every
    layer's mask must be equal bit for bit; what it keeps must be X times the framework's scale to 4 units in the last
    place, and what it drops zero. Outputs, and X where the framework tells it, may differ by ``tolerance`` times their
    largest value.

    Args:
        framework_model: a torch module, whose model takes its masks as inputs; a Keras model; a recording or the path
            of one; or any FrameworkRun. It stays as it is.
        onnx_model: a path, an onnx.ModelProto or an ir.Model, with SpatialDropout nodes or mask inputs; it is not
            changed.
        inputs: the model's inputs: an array, several in the order of the model's inputs, or by name; None only with a
            recording, which has its own.
        steps: how many passes to compare, 1 or more; by default 5, or all of a recording.
        first_step: what the first pass feeds to the model's input ``step``; by default 0, or a recording's.
        tolerance: what outputs may differ by, relative to their largest value; by default 1e-5 for float32, 5e-3 for
            float16, 4e-2 for bfloat16, 1e-6 for float64 (a node's scale is a float32).
        kernel: of ONNX Runtime: "auto", "native", "python" or "body"; see session.
        runtime: "onnxruntime", "reference" (onnx's ReferenceEvaluator) or "openvino".

    Returns:
        A Verification: true where nothing parts; its text is a table of all layers.

    Raises:
        VerifyError: what makes a comparison impossible: a model without dropout, layers that do not match by name,
            inputs that do not fit, a runtime that is missing or fails.
        SpatialDropError: the model cannot be had in that runtime.
    """
    io.checked_source(onnx_model, "onnx_model")
    tolerance = None if tolerance is None else arguments.factor(tolerance, "tolerance")
    framework = _adapter(framework_model)
    inputs, steps, start = _defaults(framework, inputs, steps, first_step)
    model = OnnxRun(onnx_model, kernel, runtime)
    named = _named(inputs, model.inputs)
    framework.begin(model.layers)
    progress = Progress(model, tolerance)
    for step in range(start, start + steps):
        done = framework.run(named, step)
        _check(done, model.layers, model.outputs)
        masks = feeds(model.layers, done.drawn or done.masks)
        misfits = compare.misfits(step, model.layers, masks)
        if misfits:
            progress.stop(misfits)
            break
        ran = model.run(named, np.array([step]) if done.step is None else done.step, masks)
        progress.add(step, done, ran.outputs, ran.seen)
    return progress.result(framework.framework, steps)


def record(
    framework_model: Any,
    onnx_model: io.Source,
    output: io.PathLike,
    inputs: Inputs,
    steps: int = 5,
    *,
    first_step: int = 0,
    layer_inputs: bool = False,
) -> Path:
    """Write what a framework does to a file, which verify takes in its place where it is not installed.

    Args:
        framework_model: as for verify.
        onnx_model: the export, which is not run: it tells the layers' names.
        output: the .npz file to write, whole or not at all; equal runs give equal bytes.
        inputs: as for verify.
        steps: how many passes, 1 or more.
        first_step: the number of the first one.
        layer_inputs: keep what every layer was called with, which takes space; it tells which layer is the first that
            something else reaches, where masks agree and outputs do not.

    Returns:
        ``output``.

    Raises:
        VerifyError: as verify.
        ModelFileError: the file cannot be written.
    """
    io.checked_source(onnx_model, "onnx_model")
    arguments.path(output, "output")
    layer_inputs = arguments.flag(layer_inputs, "layer_inputs")
    framework, exposed = _adapter(framework_model), expose(onnx_model)
    inputs, steps, first_step = _defaults(framework, inputs, steps, first_step)
    named = _named(inputs, exposed.inputs)
    framework.begin(exposed.layers)
    done = []
    for step in range(first_step, first_step + steps):
        done.append(framework.run(named, step))
        _check(done[-1], exposed.layers, exposed.outputs)
    return recording.write(output, framework.framework, named, done, first_step, layer_inputs)


def _adapter(framework_model: Any) -> FrameworkRun:
    if isinstance(framework_model, (str, os.PathLike)):
        return Recording(framework_model)
    if isinstance(framework_model, FrameworkRun):
        return framework_model
    packages = {base.__module__.split(".")[0] for base in type(framework_model).__mro__}
    for package, (module, name) in _ADAPTERS.items():
        if package in packages:
            made: FrameworkRun = getattr(import_module(module), name)(framework_model)
            return made
    kind = f"{type(framework_model).__module__}.{type(framework_model).__qualname__}"
    raise VerifyError(
        f"cannot run a {kind} object; give a torch module, a Keras model, a recording, or an object with begin and "
        "run, as FrameworkRun has them"
    )


def _defaults(
    framework: FrameworkRun, inputs: Inputs | None, steps: int | None, first_step: int | None
) -> tuple[Inputs, int, int]:
    """Return the inputs, the number of steps and the first one, a recording's own where it has them."""
    own = framework if isinstance(framework, Recording) else None
    if steps is None:
        steps = own.steps if own else 5
    steps = arguments.integer(steps, "steps", 1, _MOST_STEPS)
    if first_step is None:
        first_step = own.first_step if own else 0
    first_step = arguments.integer(first_step, "first_step", 0, 2**62)
    if inputs is None:
        if own is None:
            raise VerifyError("inputs are missing; only a recording has its own")
        inputs = own.inputs
    return inputs, steps, first_step


def _named(inputs: Inputs, names: Sequence[str]) -> dict[str, Array]:
    if isinstance(inputs, Mapping):
        given = {str(name): np.asarray(value) for name, value in inputs.items()}
        if set(given) != set(names):
            raise VerifyError(f"inputs are {', '.join(given) or 'none'}; the model takes {', '.join(names) or 'none'}")
        return {name: given[name] for name in names}
    if not hasattr(inputs, "shape") and (isinstance(inputs, (str, bytes)) or not isinstance(inputs, Iterable)):
        raise TypeError(
            f"inputs must be an array, several, or a mapping of names to arrays, not {type(inputs).__name__}"
        )
    arrays = [inputs] if hasattr(inputs, "shape") else list(inputs)
    if len(arrays) != len(names):
        raise VerifyError(f"got {len(arrays)} inputs; the model takes {len(names)}: {', '.join(names)}")
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def _check(step: FrameworkStep, layers: Sequence[Layer], outputs: Sequence[str]) -> None:
    ours, theirs = [layer.name for layer in layers], list(step.masks)
    missing, extra = [n for n in ours if n not in step.masks], [n for n in theirs if n not in ours]
    if missing or extra:
        said = [f"the framework has no {', '.join(map(repr, missing))}"] if missing else []
        said += [f"the model has no {', '.join(map(repr, extra))}"] if extra else []
        raise VerifyError(
            f"layers do not match by name: {'; '.join(said)}; the model's layers are {', '.join(map(repr, ours))}, "
            f"the framework's {', '.join(map(repr, theirs)) or 'none'}"
        )
    if len(step.outputs) != len(outputs):
        raise VerifyError(
            f"the framework returns {len(step.outputs)} outputs, the model {len(outputs)}: {', '.join(outputs)}"
        )
