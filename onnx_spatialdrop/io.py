"""Models in and out: a path, a ModelProto or an ir.Model, and the same kind back.

Weights are never read: external data stays where it is, or is copied in pieces. Files are replaced whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.gc_pause import gc_paused
from onnx_spatialdrop.storage import external, files, protos
from onnx_spatialdrop.storage.survey import Survey

__all__ = [
    "PathLike",
    "Result",
    "Rewrite",
    "Source",
    "apply",
    "checked_source",
    "first_line",
    "from_proto",
    "from_survey",
    "load",
    "read",
    "rewrite",
    "same_kind",
    "save",
]

PathLike = str | os.PathLike[str]
Source = PathLike | onnx.ModelProto | ir.Model
Result = ir.Model | onnx.ModelProto | Path

T = TypeVar("T")
M = TypeVar("M", onnx.ModelProto, ir.Model)
P = ParamSpec("P")


class Rewrite(Protocol[P]):
    """A function that takes a model and returns the same kind; with an output, the path written."""

    @overload
    def __call__(self, model: M, output: None = None, *args: P.args, **kwargs: P.kwargs) -> M: ...
    @overload
    def __call__(self, model: PathLike, output: None = None, *args: P.args, **kwargs: P.kwargs) -> ir.Model: ...
    @overload
    def __call__(self, model: Source, output: PathLike, *args: P.args, **kwargs: P.kwargs) -> Path: ...
    def __call__(self, model: Any, output: Any = None, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Rewrite the model."""


def same_kind(function: Callable[Concatenate[Source, PathLike | None, P], Result]) -> Rewrite[P]:
    """Declare that a function returns the kind of model that it was given; it changes nothing at run time."""
    return cast("Rewrite[P]", function)


@gc_paused()
def load(path: PathLike) -> ir.Model:
    """Read an .onnx file; external weights stay on disk until something asks for them.

    Raises:
        ModelFileError: the file is missing, unreadable or no ONNX model; it holds what onnx_ir would lose (sparse
            initializers, training_info); or its external data is missing, too short or outside the model's folder.
    """
    file = arguments.path(path, "path")
    model = read(file)
    external.check(model, file)
    return model


def read(file: Path) -> ir.Model:
    """Read an .onnx file as load does, but for the look at its external data.

    Raises:
        ModelFileError: as load does.
    """
    content = files.read(file)
    model = from_survey(protos.survey(protos.parse(content, str(file)), str(file), content=content), str(file))
    # An absolute folder, so that its data is found from everywhere.
    external.set_folder(model, os.path.dirname(os.path.abspath(file)))
    return model


def from_proto(proto: onnx.ModelProto, where: str = "the model") -> ir.Model:
    """Return the model, if it is one and onnx_ir can hold all of it.

    Raises:
        ModelFileError: it is malformed (see wellformed.py), or onnx_ir would lose something.
    """
    return from_survey(protos.survey(proto, where), where)


def from_survey(found: Survey, where: str) -> ir.Model:
    """Return the model that a look at a protobuf found to be one.

    Raises:
        ModelFileError: onnx_ir cannot read it.
    """
    try:
        model = ir.from_proto(found.model)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:  # RecursionError too
        raise ModelFileError(f"{where}: is not a readable ONNX model: {first_line(error)}") from error
    for tensor in _tensors(model):
        # onnx_ir would write this metadata beside the proto's own copy of it.
        if isinstance(tensor, ir.TensorProtoTensor):
            tensor.metadata_props.clear()
    return model


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol | None]:
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for scope in (graph, *graph.subgraphs()):
            for value in scope.initializers.values():
                yield value.const_value
        for node in graph.all_nodes():
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield attribute.as_tensor()
                elif attribute.type == ir.AttributeType.TENSORS and not attribute.is_ref():
                    yield from attribute.as_tensors()


@gc_paused()
def save(model: ir.Model | onnx.ModelProto, path: PathLike, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write a model atomically: to a temporary file in the same folder, then in the place of ``path``.

    External data in the folder of ``path`` stays where it is; external data elsewhere is copied, without being held in
    memory, into a file beside ``path`` that is named by its content, ``<name>.<16 digits>.data``, and never replaced:
    other models may use it. The data of a model that is replaced stays, too, and is named in the log. So who reads
    ``path`` while it is written, by several processes even, has one model with its own weights. ``model`` is not
    changed. Models pass through onnx_ir, which writes an empty domain for "ai.onnx" and leaves out value_info of names
    that do not exist.

    Args:
        model: the model.
        path: the .onnx file to write.
        progress: called with (bytes copied, bytes in all) while weights are copied.

    Returns:
        ``path``.

    Raises:
        ModelFileError: the file cannot be written, or the model is over 2 GB without external data.
    """
    file = arguments.path(path, "path")
    if isinstance(model, onnx.ModelProto):
        model = from_proto(model)
    arguments.instance(model, "model", ir.Model, "an onnx.ModelProto or an onnx_ir.Model")
    protos.write_beside(model, file, lambda: _serialized(model, file), progress)
    return file


def _serialized(model: ir.Model, file: Path) -> bytes:
    try:
        proto = ir.to_proto(model)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ModelFileError(f"{file}: the model cannot be written: {first_line(error)}") from error
    return protos.serialized(proto, file)


def checked_source(model: object, name: str = "model") -> Path | onnx.ModelProto | ir.Model:
    """Return an argument ``model``, a path as a Path.

    Raises:
        TypeError: it is neither a path nor a model.
    """
    if isinstance(model, (onnx.ModelProto, ir.Model)):
        return model
    if isinstance(model, (str, os.PathLike)):
        return arguments.path(model, name)
    hint = "; onnx.load_model_from_string reads the bytes of a file" if isinstance(model, bytes) else ""
    kind = "None" if model is None else type(model).__name__
    raise TypeError(f"{name} must be a path, an onnx.ModelProto or an onnx_ir.Model, not {kind}{hint}")


@gc_paused()
def rewrite(model: Source, output: PathLike | None, function: Callable[[ir.Model], T]) -> tuple[Result, T]:
    """Run ``function`` on a model and return the result in the kind that came in, and what ``function`` returned.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; the caller's object is not changed.
        output: where to write the result; then its path is returned in place of the model.
        function: changes the ir.Model that it is given, in place.
    """
    if output is not None:
        arguments.path(output, "output")
    source = checked_source(model)
    if isinstance(source, onnx.ModelProto):
        working = from_proto(source)
    else:
        working = source.clone() if isinstance(source, ir.Model) else load(source)
    returned = function(working)
    if output is not None:
        return save(working, output), returned
    return ir.to_proto(working) if isinstance(model, onnx.ModelProto) else working, returned


def apply(model: Source, output: PathLike | None, *passes: ir.passes.InPlacePass) -> Result:
    """Run passes on a model, one after the other; see rewrite."""

    def run(working: ir.Model) -> None:
        for each in passes:
            each.call(working)

    return rewrite(model, output, run)[0]


def first_line(error: BaseException) -> str:
    """Return the first line of what the innermost cause of ``error`` says."""
    while error.__cause__ is not None:  # the innermost says what is wrong
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
