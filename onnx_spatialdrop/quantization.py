"""int8 models that draw as the float model does: ONNX Runtime's quantiser, calibrated while dropout is on.

It prepares what the quantiser is given and what its calibration is fed; ranges, weights and nodes are the quantiser's.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import FormError, SpecError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.attach import AttachPass, DetachPass
from onnx_spatialdrop.passes.fuse import FusePass
from onnx_spatialdrop.passes.opset import OpsetPass

__all__ = ["FORMS", "DrawingReader", "Form", "Reader", "quantize_dynamic", "quantize_static"]

Form = Literal["attached", "nodes"]
#: Calibration data: a reader as ONNX Runtime has it, or feeds one after the other.
Reader: TypeAlias = "CalibrationDataReader | Iterable[Mapping[str, Any]]"
FORMS: Final = ("attached", "nodes")
#: Operators whose weights are quantised; the last of them before an output decides about its precision.
_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: The first opset whose body draws by the definition; with others calibration would be another each time.
_OPSET: Final = 18
#: What ONNX Runtime's quantiser looks for in a model that its quant_pre_process has prepared.
_PREPARED: Final = "onnx.quant.pre_process"
_PREPARED_BY: Final = "onnxruntime.quant"
#: Bytes from which on weights are written beside a model, which itself can hold no more than 2 GB.
_LARGE: Final = 2**30
#: Arguments of ONNX Runtime's functions that are set here.
_OURS: Final = frozenset({"model_input", "model_output", "calibration_data_reader", "use_external_data_format"})


class DrawingReader(CalibrationDataReader):
    """A calibration reader that gives each batch of another one several times, with dropout on and another draw each.

    Draws are steps 0, 1, 2, ..., one a run, so calibration gives the same ranges each time. What the other reader feeds
    itself is left alone.
    """

    def __init__(self, reader: Reader, model: io.Source, *, draws: int = 2) -> None:
        """Wrap ``reader``.

        Args:
            reader: a calibration reader, or an iterable of feeds: dicts of arrays by input.
            model: what is calibrated: a path, an onnx.ModelProto or an ir.Model, with SpatialDropout nodes; its
                switches are found in it.
            draws: runs a batch, 1 or more. An activation's range has to hold what any draw makes of it.

        Raises:
            SpecError: the model has no nodes, or none that an input of the model switches on.
        """
        self._batches = _batches(reader)
        self._draws = arguments.integer(draws, "draws", 1)
        switches = io.rewrite(model, None, _switches)[1]
        self._modes = [value.name or "" for value in switches if value.dtype == ir.DataType.BOOL]
        self._steps = {value.name or "": len(value.shape or ()) for value in switches if value.name not in self._modes}
        self._runs = self._feeds()

    def get_next(self) -> dict[str, Any] | None:
        """Return what to feed next, or None at the end."""
        return next(self._runs, None)

    def _feeds(self) -> Iterator[dict[str, Any]]:
        step = 0
        for batch in self._batches:
            for _ in range(self._draws):
                on = {name: np.array(True) for name in self._modes}
                drawn = {name: np.full([1] * rank, step, np.int64) for name, rank in self._steps.items()}
                yield {**on, **drawn, **batch}
                step += 1


def quantize_static(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    reader: Reader,
    draws: int = 2,
    form: Form = "attached",
    quantize_outputs: bool = False,
    **further: Any,
) -> io.Result:
    """Return the model with quantised weights and activations, whose ranges hold what its draws compute.

    ONNX Runtime's quantize_static calibrates with every input at its default, that is with dropout off. Activations
    behind a dropout are then cut off at what they are without it, and draws are too much alike. Here each batch is
    calibrated with dropout on.

    Dropout of every spelling becomes nodes first, so that no generator and no mask is quantised; ``expand`` and
    ``monte_carlo`` take the result as they take any file.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model, with nodes, attached, expanded or exported in training mode;
            below opset 18 it is converted to that. It is not changed.
        output: a file to write; then its path is returned.
        reader: the calibration data: a CalibrationDataReader, or an iterable of feeds, dicts of arrays by input. It
            need not feed switches.
        draws: runs a batch, 1 or more.
        form: "attached": the nodes with the operator's body, which run everywhere; "nodes": without it.
        quantize_outputs: False: the last layers before the outputs stay in floating point. In 8 bits they would add
            noise of their own to the spread over draws.
        further: of onnxruntime.quantization.quantize_static, such as per_channel, activation_type and weight_type.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: no dropout is in the model, or nothing switches it on.
        FormError: there is no such form, the opset cannot be converted to 18, or ONNX Runtime cannot quantise it.
        ModelFileError: a file that cannot be read or written.
        TypeError: an argument that quantize_static does not have.
    """
    from onnxruntime.quantization import quantize_static as quantize

    batches = _batches(reader)
    arguments.integer(draws, "draws", 1)

    def run(prepared: Path, made: Path, options: dict[str, Any]) -> None:
        quantize(prepared, made, DrawingReader(batches, prepared, draws=draws), **options)

    return _quantized(model, output, form, quantize_outputs, quantize, further, run)


def quantize_dynamic(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    form: Form = "attached",
    quantize_outputs: bool = False,
    **further: Any,
) -> io.Result:
    """Return the model with quantised weights; each run takes its activations' ranges from what it computes.

    So ranges follow the draws by themselves. But a range is one of the whole batch: what a sample gets depends on the
    samples beside it, and MCDropout and monte_carlo run their draws one after the other.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model, as quantize_static takes it. It is not changed.
        output: a file to write; then its path is returned.
        form: as quantize_static has it.
        quantize_outputs: as quantize_static has it.
        further: of onnxruntime.quantization.quantize_dynamic, such as per_channel and weight_type.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: no dropout is in the model, or nothing switches it on.
        FormError: there is no such form, the opset cannot be converted to 18, or ONNX Runtime cannot quantise it.
        ModelFileError: a file that cannot be read or written.
        TypeError: an argument that quantize_dynamic does not have.
    """
    from onnxruntime.quantization import quantize_dynamic as quantize

    def run(prepared: Path, made: Path, options: dict[str, Any]) -> None:
        quantize(prepared, made, **options)

    return _quantized(model, output, form, quantize_outputs, quantize, further, run)


def _quantized(
    model: io.Source,
    output: io.PathLike | None,
    form: Form,
    quantize_outputs: bool,
    quantize: Callable[..., None],
    further: dict[str, Any],
    run: Callable[[Path, Path, dict[str, Any]], None],
) -> io.Result:
    arguments.choice(form, "form", FORMS, FormError)
    keep_outputs = not arguments.flag(quantize_outputs, "quantize_outputs")
    known = inspect.signature(quantize).parameters.keys() - _OURS
    unknown = sorted(further.keys() - known)
    if unknown:
        raise TypeError(f"{quantize.__name__}() has no argument {unknown[0]!r}; ONNX Runtime's has {sorted(known)}")
    if output is not None:
        arguments.path(output, "output")
    working, (heads, defaults) = io.rewrite(model, None, _prepare)
    assert not isinstance(working, Path)
    options = dict(further)
    if keep_outputs:
        options["nodes_to_exclude"] = [*(options.get("nodes_to_exclude") or ()), *heads]
    with tempfile.TemporaryDirectory(prefix="onnx_spatialdrop_") as folder:
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        io.save(working, prepared)
        _fold(prepared)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        try:
            run(prepared, made, {**options, "use_external_data_format": size > _LARGE})
        except (RuntimeError, ValueError, AssertionError, onnx.checker.ValidationError) as error:
            raise FormError(f"ONNX Runtime cannot quantise the model: {io.first_line(error)}") from error
        result = io.load(made)
        _finish(result, defaults, form)
        if output is not None:
            return io.save(result, output)
        result = ir.external_data.load_to_model(result)
    return ir.to_proto(result) if isinstance(model, onnx.ModelProto) else result


def _prepare(model: ir.Model) -> tuple[list[str], dict[str, ir.TensorProtocol]]:
    """Make nodes of all dropout, in place, with the body, and take the defaults off its switches.

    Calibration feeds them all, and ONNX Runtime warns of inputs with a default.

    Returns:
        The names of the nodes that make the outputs, and the defaults of switches.
    """
    if any(value.name == "samples" for value in model.graph.inputs):
        raise SpecError("the model has an input 'samples', as files of monte_carlo have; quantise what it was made of")
    FusePass(elementwise=True, bernoulli=True).call(model)
    if model.opset_imports.get("", _OPSET) < _OPSET:
        OpsetPass(_OPSET).call(model)
    switches = _switches(model)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
    AttachPass().call(model)
    defaults = {value.name or "": value.const_value for value in switches if value.const_value is not None}
    controls.require(model.graph, switches)
    model.metadata_props[_PREPARED] = _PREPARED_BY
    return _heads(model.graph), defaults


def _finish(model: ir.Model, defaults: dict[str, ir.TensorProtocol], form: Form) -> None:
    """Give switches their defaults back, in place, and the file the form that was asked for."""
    for value in model.graph.inputs:
        if (tensor := defaults.get(value.name or "")) is not None:
            value.const_value = tensor
            model.graph.register_initializer(value)
    model.metadata_props.pop(_PREPARED, None)
    (AttachPass() if form == "attached" else DetachPass()).call(model)


def _heads(graph: ir.Graph) -> list[str]:
    """Return the nodes between each output and the last weights before it, those that hold these included."""
    found: dict[ir.Node, None] = {}
    pending = list(graph.outputs)
    while pending:
        node = pending.pop().producer()
        if node is None or node in found or op.is_spatial_dropout(node):
            continue
        found[node] = None
        if node.op_type not in _WEIGHTED:
            pending += [value for value in node.inputs if value is not None]
    return [node.name or "" for node in found]


def _fold(file: Path) -> None:
    """Let ONNX Runtime fold batch norms and constants, in place, as its quant_pre_process does.

    Not with that, since its session has no kernel for the nodes, and would write their bodies out.
    """
    import onnxruntime

    if native.missing_reason() is not None:
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = file.with_name("folded.onnx")
    options.optimized_model_filepath = str(folded)
    data = "folded.onnx.data"
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", data)
    native.register(options)
    try:
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of ONNX Runtime's errors is a class of its own
        raise FormError(f"ONNX Runtime cannot load the model: {io.first_line(error)}") from error
    model = io.load(folded)
    AttachPass().call(model)
    io.save(model, file)


def _switches(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that nodes follow: what switches them on, and their steps.

    Raises:
        SpecError: there are no nodes, or none that can be switched on.
    """
    nodes = [site.node for site in scopes.spatial_dropouts(model)]
    if not nodes:
        raise SpecError(
            "the model has no dropout that draws: onnxruntime.quantization needs no help with it; "
            "insert(model, last=True, rate=0.2) puts dropout in"
        )
    found = controls.behind(value for node in nodes for value in node.inputs[1:3])
    if not any(value.dtype == ir.DataType.BOOL for value in found) and not any(map(_always_on, nodes)):
        raise SpecError("no input switches the model's dropout on; fix(model, training_mode='free') makes one")
    return [value for value in found if value.dtype in (ir.DataType.BOOL, ir.DataType.INT64)]


def _always_on(node: ir.Node) -> bool:
    constant = controls.constant_of(node.inputs[1])
    return constant is not None and bool(constant.reshape(-1)[0])


def _batches(reader: Reader) -> Iterator[Mapping[str, Any]]:
    if callable(getattr(reader, "get_next", None)):
        return iter(reader.get_next, None)  # type: ignore[union-attr]
    if isinstance(reader, Iterable) and not isinstance(reader, (str, bytes, Mapping)):
        return iter(reader)
    raise TypeError(f"reader must be a CalibrationDataReader or an iterable of feeds, not {type(reader).__name__}")
