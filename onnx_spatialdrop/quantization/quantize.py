"""quantize_static and quantize_dynamic. What is quantised, and how, ONNX Runtime's quantiser decides by its options.

It prepares the file that the quantiser is given (see prepared.py), and gives the result its switches back.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import FormError, SpatialDropError
from onnx_spatialdrop.quantization.prepared import finish, prepare
from onnx_spatialdrop.quantization.reader import DrawingReader, Reader, batches

__all__ = ["quantize_dynamic", "quantize_static"]

#: Bytes from which on weights are written beside a model, which itself can hold no more than 2 GB.
_LARGE: Final = 2**30
#: Arguments of ONNX Runtime's functions that are set here.
_OURS: Final = frozenset({"model_input", "model_output", "calibration_data_reader", "use_external_data_format"})
#: Options that name nodes.
_NAMING: Final = ("nodes_to_quantize", "nodes_to_exclude")


def quantize_static(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    reader: Reader,
    draws: int = 2,
    quantize_outputs: bool = False,
    **further: Any,
) -> io.Result:
    """Return the model with quantised weights and activations, whose ranges hold what its draws compute.

    ONNX Runtime's quantize_static calibrates with every input at its default, that is with dropout off. Activations
    behind a dropout are then cut off at what they are without it, and draws are too much alike. Here each batch is
    calibrated with dropout on.

    Dropout of every spelling becomes nodes first, so that no generator and no mask is quantised. The result carries the
    operator's body and runs everywhere; ``detach``, ``expand`` and ``monte_carlo`` take it as they take any file.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model, with nodes, attached, expanded or exported in training mode;
            below opset 18 it is converted to that. It is not changed.
        output: a file to write; then its path is returned.
        reader: the calibration data: a CalibrationDataReader, or an iterable of feeds, dicts of arrays by input. It
            need not feed switches.
        draws: runs a batch, 1 or more.
        quantize_outputs: False: the last layers before the outputs stay in floating point. In 8 bits they would add
            noise of their own to the spread over draws.
        further: of onnxruntime.quantization.quantize_static, such as per_channel, activation_type and weight_type.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: no dropout is in the model, nothing switches it on, or the model is quantised already.
        FormError: the opset cannot be converted to 18, or ONNX Runtime cannot quantise the model.
        ModelFileError: a file that cannot be read or written.
        TypeError: an argument that quantize_static does not have.
    """
    from onnxruntime.quantization import quantize_static as quantize

    given = batches(reader)
    arguments.integer(draws, "draws", 1)

    def run(prepared: Path, made: Path, options: dict[str, Any]) -> None:
        quantize(prepared, made, DrawingReader(given, prepared, draws=draws), **options)

    return _quantized(model, output, quantize_outputs, quantize, further, run)


def quantize_dynamic(
    model: io.Source, output: io.PathLike | None = None, *, quantize_outputs: bool = False, **further: Any
) -> io.Result:
    """Return the model with quantised weights; each run takes its activations' ranges from what it computes.

    So ranges follow the draws by themselves. But a range is one of the whole batch: what a sample gets depends on the
    samples beside it, and MCDropout and monte_carlo run their draws one after the other.

    Args:
        model: as quantize_static takes it. It is not changed.
        output: a file to write; then its path is returned.
        quantize_outputs: as quantize_static has it.
        further: of onnxruntime.quantization.quantize_dynamic, such as per_channel and weight_type.

    Returns:
        As quantize_static.

    Raises:
        SpecError, FormError, ModelFileError, TypeError: as quantize_static does.
    """
    from onnxruntime.quantization import quantize_dynamic as quantize

    def run(prepared: Path, made: Path, options: dict[str, Any]) -> None:
        quantize(prepared, made, **options)

    return _quantized(model, output, quantize_outputs, quantize, further, run)


def _quantized(
    model: io.Source,
    output: io.PathLike | None,
    quantize_outputs: bool,
    quantize: Callable[..., None],
    further: dict[str, Any],
    run: Callable[[Path, Path, dict[str, Any]], None],
) -> io.Result:
    arguments.flag(quantize_outputs, "quantize_outputs")
    known = inspect.signature(quantize).parameters.keys() - _OURS
    unknown = sorted(further.keys() - known)
    if unknown:
        raise TypeError(f"{quantize.__name__}() has no argument {unknown[0]!r}; ONNX Runtime's has {sorted(known)}")
    if output is not None:
        arguments.path(output, "output")
    with tempfile.TemporaryDirectory(prefix="onnx_spatialdrop_", ignore_cleanup_errors=True) as folder:
        file, made = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        prepared = prepare(model, file)
        options = {**further, **{name: prepared.named(further[name], name) for name in _NAMING if further.get(name)}}
        if not quantize_outputs:
            options["nodes_to_exclude"] = [*options.get("nodes_to_exclude", ()), *prepared.heads]
        options["use_external_data_format"] = sum(each.stat().st_size for each in Path(folder).iterdir()) > _LARGE
        try:
            run(file, made, options)
        except SpatialDropError:
            raise
        except Exception as error:
            raise FormError(f"ONNX Runtime cannot quantise the model: {io.first_line(error)}") from error
        result = io.load(made)
        finish(result, prepared.defaults)
        if output is not None:
            return io.save(result, output)
        result = ir.external_data.load_to_model(result)
    return ir.to_proto(result) if isinstance(model, onnx.ModelProto) else result
