"""Run the ONNX side of a verification step by step, in one of three runtimes, with every dropout's insides in view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import SpatialDropError, VerifyError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.kernels import python
from onnx_spatialdrop.passes.expand import ExpandPass
from onnx_spatialdrop.runtime.session import Kernel, choose, session
from onnx_spatialdrop.verify.expose import expose
from onnx_spatialdrop.verify.framework import Array

__all__ = ["RUNTIMES", "OnnxRun", "OnnxStep", "Runtime", "Seen"]

Runtime = Literal["onnxruntime", "reference", "openvino"]
RUNTIMES: Final[tuple[Runtime, ...]] = get_args(Runtime)

#: Takes all inputs by name and returns all outputs by name.
_Runner = Callable[[dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Seen:
    """One dropout at work: its input and result as doubles, and the mask, True where kept."""

    x: Array
    y: Array
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OnnxStep:
    """One run of the model: its own outputs, and each dropout by its layer's name."""

    outputs: tuple[Array, ...]
    seen: dict[str, Seen]


class OnnxRun:
    """A model that runs with training_mode true, one step after the other.

    Attributes:
        runtime: what runs it, and its version.
        layers: its dropouts, in the order of the file.
        inputs: the names of its inputs, but for switches, masks and those with a default.
        outputs: the names of its outputs.

    Raises:
        VerifyError: a model without dropout, or one whose masks cannot be seen; see ExposePass. Or the runtime
            refuses it.
        SpatialDropError: the runtime or the kernel is not there, or the model cannot be had in it.
    """

    def __init__(self, model: io.Source, kernel: Kernel = "auto", runtime: Runtime = "onnxruntime") -> None:
        arguments.choice(runtime, "runtime", RUNTIMES, VerifyError)
        exposed = expose(model)
        self._seen, self._control_inputs = exposed.seen, exposed.control_inputs
        self.layers, self.inputs, self.outputs = exposed.layers, exposed.inputs, exposed.outputs
        try:
            self.runtime, self._run = _START[runtime](exposed.model, kernel, self._control_inputs)
        except SpatialDropError:
            raise
        except Exception as error:
            raise VerifyError(f"{runtime} cannot load the model: {io.first_line(error)}") from error

    def run(self, inputs: Mapping[str, Array], step: Array, masks: Mapping[str, Array]) -> OnnxStep:
        """Run one step.

        Args:
            inputs: one array for each name of ``inputs``.
            step: what to feed to the input ``step``.
            masks: what to feed to mask inputs, by their names.

        Raises:
            VerifyError: the runtime failed.
        """
        fed = {**inputs, **{name: np.ascontiguousarray(mask) for name, mask in masks.items()}}
        for name, value in self._control_inputs.items():
            fed[name] = np.asarray(step, np.int64).reshape(-1) if value.dtype == np.int64 else value
        try:
            results = self._run(fed)
        except Exception as error:
            where = f"{self.runtime} could not run step {np.asarray(step).tolist()}"
            raise VerifyError(f"{where}: {io.first_line(error)}") from error
        seen = {
            layer.name: Seen(*(results[name] for name in names))
            for layer, names in zip(self.layers, self._seen, strict=True)
        }
        return OnnxStep(tuple(results[name] for name in self.outputs), seen)


def _onnxruntime(model: ir.Model, kernel: Kernel, _: Mapping[str, Array]) -> tuple[str, _Runner]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it logs of errors it raises, too
    made = session(model, kernel, sess_options=options)
    names = [output.name for output in made.get_outputs()]
    held = f" ({choose(kernel)[0]} kernel)" if scopes.spatial_dropouts(model) else ""

    def run(feeds: dict[str, Array]) -> dict[str, Array]:
        with python.refusals() as refusals:
            try:
                return dict(zip(names, made.run(names, feeds), strict=True))
            except Exception:
                if refusals:
                    raise VerifyError(refusals[0]) from None
                raise

    return f"onnxruntime {onnxruntime.__version__}{held}", run


def _reference(model: ir.Model, _: Kernel, __: Mapping[str, Array]) -> tuple[str, _Runner]:
    from onnx.reference import ReferenceEvaluator

    from onnx_spatialdrop.operator.evaluator import SpatialDropout

    made: Any = ReferenceEvaluator(ir.to_proto(model), new_ops=[SpatialDropout])
    names = list(made.output_names)
    return (
        f"onnx {onnx.__version__} (ReferenceEvaluator)",
        lambda feeds: dict(zip(names, made.run(names, feeds), strict=True)),
    )


def _openvino(model: ir.Model, _: Kernel, control_inputs: Mapping[str, Array]) -> tuple[str, _Runner]:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise VerifyError("openvino is not installed: pip install openvino") from error
    ExpandPass(target="openvino").call(model)
    for name in control_inputs:  # it takes an input with a default for a constant
        model.graph.initializers.pop(name, None)
    core = openvino.Core()
    content = ir.to_proto(model).SerializeToString()
    made = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    known = {name for port in made.inputs for name in port.names}

    def run(feeds: dict[str, Array]) -> dict[str, Array]:
        results = made({name: value for name, value in feeds.items() if name in known})
        return {name: array_of(port, value) for port, value in results.items() for name in port.names}

    def array_of(port: Any, value: Array) -> Array:
        bfloat16 = port.get_element_type() == openvino.Type.bf16  # its Python API hands that out as float16
        return np.array(value.view(ml_dtypes.bfloat16) if bfloat16 else value)

    return f"openvino {openvino.__version__.split('-')[0]}", run


_START: Final[dict[str, Callable[[ir.Model, Kernel, Mapping[str, Array]], tuple[str, _Runner]]]] = {
    "onnxruntime": _onnxruntime,
    "reference": _reference,
    "openvino": _openvino,
}
