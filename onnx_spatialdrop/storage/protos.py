"""Models as protobufs: read, looked at, and written with their external data by reference or copied."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from onnx_spatialdrop.errors import ModelFileError, ModelFileWarning
from onnx_spatialdrop.storage import external, files
from onnx_spatialdrop.storage.external_copy import moved_to
from onnx_spatialdrop.storage.order import sort_nodes
from onnx_spatialdrop.storage.survey import Survey
from onnx_spatialdrop.storage.wellformed import refuse_malformed

__all__ = ["check_external", "parse", "serialized", "survey", "write", "write_beside"]

_LOG = logging.getLogger("onnx_spatialdrop")


def parse(content: bytes, where: str) -> onnx.ModelProto:
    """Return the model that the bytes of a file hold.

    Raises:
        ModelFileError: they hold none.
    """
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelFileError(f"{where}: is not a readable ONNX model: {_first_line(error)}") from error
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def survey(model: onnx.ModelProto, where: str, wanted: Collection[str] = (), content: bytes | None = None) -> Survey:
    """Look at all of a model, if it is one and onnx_ir can hold all of it.

    Nodes out of topological order are sorted, in a copy, and a ModelFileWarning says so.

    Args:
        model: the model; it is not changed.
        where: who asks, for messages.
        wanted: see wellformed.refuse_malformed.
        content: see wellformed.refuse_malformed.

    Raises:
        ModelFileError: it is malformed (see wellformed.py), or onnx_ir would lose something.
    """
    if not model.opset_import and not model.graph.node:
        raise ModelFileError(f"{where}: is not an ONNX model (it imports no operator set and has no nodes)")
    if model.training_info:
        raise ModelFileError(f"{where}: holds training_info, which onnx_ir would lose; take it out of the model first")
    try:
        found = refuse_malformed(model, where, wanted, content)
    except ModelFileError as error:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        try:
            is_sorted = sort_nodes(copy)
        except RecursionError:
            raise error from None
        if not is_sorted:
            raise
        found = refuse_malformed(copy, where, wanted)
        message = f"{where}: its nodes did not stand in topological order; they were sorted"
        warnings.warn(message, ModelFileWarning, stacklevel=2)
    if any(isinstance(block.body, onnx.GraphProto) and block.body.sparse_initializer for block in found.blocks):
        raise ModelFileError(
            f"{where}: holds sparse initializers, which onnx_ir would lose; write them as dense initializers first"
        )
    return found


def serialized(model: onnx.ModelProto, file: Path) -> bytes:
    """Return the bytes of a model, equal for equal models.

    Raises:
        ModelFileError: they are more than protobuf holds.
    """
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelFileError(f"{file}: the model cannot be written: {_first_line(error)}") from error
    if len(content) > files.LARGEST:
        raise ModelFileError(
            f"{file}: the model cannot be written as one file of {len(content)} bytes, since protobuf holds 2 GiB; "
            "keep its weights in external data (onnx_ir.save(..., external_data=...))"
        )
    return content


def check_external(found: Survey, file: Path) -> None:
    """Refuse external data that is missing, too short, or outside the folder of ``file``; see external.check."""
    if found.external:
        external.check(External(found, file).model, file)


class External:
    """The external data of a survey's model, as external.py takes it: the initializers of a model of nothing else.

    Args:
        found: the survey.
        file: where the model was read from.
    """

    def __init__(self, found: Survey, file: Path) -> None:
        self._protos = found.external
        folder = os.path.dirname(os.path.abspath(file))
        self._tensors = [ir.serde.deserialize_tensor(proto, folder) for proto in found.external]
        self._values = [ir.Value(name=str(number), const_value=each) for number, each in enumerate(self._tensors)]
        self.model = ir.Model(ir.Graph([], [], nodes=[], initializers=self._values), ir_version=10)

    def write_places(self) -> bool:
        """Write into the protobufs where their data is now; return whether any has moved."""
        moved = False
        for proto, value, old in zip(self._protos, self._values, self._tensors, strict=True):
            tensor = value.const_value
            if tensor is not old and isinstance(tensor, ir.ExternalTensor):
                moved = True
                given = {"location": tensor.location, "offset": tensor.offset, "length": tensor.length}
                del proto.external_data[:]
                for key, entry in given.items():
                    if entry is not None:
                        proto.external_data.add(key=key, value=str(entry))
        return moved


def write(
    found: Survey,
    source: Path,
    output: Path,
    content: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a model that was read from ``source``, as io.save does; what the survey holds may be changed.

    Args:
        found: the model.
        source: its file; external data is meant beside it.
        output: the file to write, whole or not at all.
        content: the bytes to write where no weight has to move; by default those of the model.
        progress: called with (bytes copied, bytes in all) while weights are copied.

    Raises:
        ModelFileError: a file that cannot be read or written.
    """
    data = External(found, source)

    def bytes_to_write() -> bytes:
        moved = data.write_places()
        return serialized(found.model, output) if moved or content is None else content

    write_beside(data.model, output, bytes_to_write, progress)


def write_beside(
    model: ir.Model, file: Path, content: Callable[[], bytes], progress: Callable[[int, int], None] | None
) -> None:
    """Write ``file`` with what ``content`` returns, once the external data of ``model`` is, or will be, beside it."""
    with moved_to(model, file, progress) as data:
        written = content()
        with files.replacing(file) as out:
            out.stream.write(written)
            out.sync()
            data.commit()  # all is on disk: the weights get their name, and then the model its place
    if data.left:  # the caller may want the space
        _LOG.info("%s: weights of the model that was there stay in %s", file, ", ".join(data.left))
