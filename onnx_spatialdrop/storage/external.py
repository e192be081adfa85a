"""External data of models: checked, kept by reference, or copied in pieces. It never holds weights in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage.files import Pending

__all__ = ["Copy", "check", "dangling", "folders", "moved_to", "set_folder", "without_base_dir"]

_PIECE = 4 << 20
#: Memory-mapping runtimes want large tensors to start on a page.
_ALIGNMENT = 4096
#: How many hexadecimal digits of its content's hash are in a data file's name; contents are compared, too.
_DIGITS = 16


class Copy:
    """What has to happen when a model is written whose external data is elsewhere.

    Attributes:
        pending: the copied data, on its way to its name; None where nothing had to be copied, or all is there already.
        left: names of the files with the weights of the model that is replaced, which the new one does not use.
    """

    def __init__(self) -> None:
        self.pending: Pending | None = None
        self.left: list[str] = []
        self.restore: list[Callable[[], None]] = []

    def commit(self) -> None:
        """Give the copied data its name, which is that of its content: nobody else's data is ever replaced."""
        if self.pending is None:
            return
        try:
            self.pending.place_beside()
        except FileExistsError:
            if not _same(self.pending, self.pending.final):  # else somebody was quicker with the same weights
                raise


def check(model: ir.Model, file: Path) -> None:
    """Refuse external data that is missing, too short, or outside the folder of ``file``.

    Raises:
        ModelFileError: naming the tensor and the file.
    """
    folder = Path(os.path.abspath(file)).parent
    # A model that is a link (as in model caches) may have its data beside what it points to.
    allowed = (folder.resolve(), file.resolve().parent)
    _refuse_lists(model, file)
    sizes: dict[str, int] = {}
    for tensor in _tensors(model):
        location = os.fspath(tensor.location)
        target = (folder / location).resolve()
        if not any(target.is_relative_to(home) for home in allowed):
            raise ModelFileError(
                f"{file}: tensor {tensor.name!r} is stored in {location!r}, outside the model's folder; "
                "that is refused, since a model file must not read the rest of the disk"
            )
        if location not in sizes:
            if not target.is_file():
                raise ModelFileError(f"{file}: its data file {location!r} is missing; put it beside the model")
            sizes[location] = target.stat().st_size
        if tensor.length is not None and tensor.length < tensor.nbytes:
            raise ModelFileError(
                f"{file}: tensor {tensor.name!r} of {tensor.nbytes} bytes is said to be {tensor.length} bytes in "
                f"{location!r}"
            )
        if _end(tensor) > sizes[location]:
            raise ModelFileError(
                f"{file}: tensor {tensor.name!r} ends at byte {_end(tensor)} of {location!r}, which has "
                f"{sizes[location]} bytes;"
                " the file is truncated or belongs to another model"
            )


def set_folder(model: ir.Model, folder: str) -> None:
    """Tell every external tensor, functions' included, that its data lies in ``folder``."""
    for tensor in _tensors(model):
        tensor.base_dir = folder


def dangling(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the external tensors whose bytes are not all there."""
    found = []
    for tensor in _tensors(model):
        path = Path(tensor.path)
        if not path.is_file() or path.stat().st_size < _end(tensor):
            found.append(tensor)
    return found


def without_base_dir(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the external tensors of which the model does not know in which folder they lie."""
    return [tensor for tensor in _tensors(model) if tensor.base_dir == ""]


def _end(tensor: ir.ExternalTensor) -> int:
    return (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)


def folders(model: ir.Model) -> set[Path]:
    """Return the folders in which the model's external data lies, where the model knows them."""
    return {Path(tensor.base_dir) for tensor in _tensors(model) if tensor.base_dir != ""}


@contextmanager
def moved_to(model: ir.Model, file: Path, progress: Callable[[int, int], None] | None) -> Iterator[Copy]:
    """Let ``model`` refer, inside the context, to external data that is or will be beside ``file``.

    The caller writes the model and then commits the copy; on the way out the model is as it was before.
    """
    _refuse_lists(model, file)
    folder = file.parent.resolve()
    foreign = [t for t in _tensors(model) if t.base_dir != "" and Path(t.base_dir).resolve() != folder]
    lost = [t for t in _tensors(model) if t.base_dir == "" and not _is_inside(folder, t)]
    if lost:
        raise ModelFileError(
            f"{file}: tensor {lost[0].name!r} refers to {os.fspath(lost[0].location)!r}, which is not in {folder}, and "
            "the model does not say where it was read from; read it with onnx_spatialdrop.load, which keeps that"
        )
    copy = Copy()
    try:
        if foreign:
            copy.pending = Pending(file)
            _redirect(model, _copied(foreign, copy.pending, file, progress), copy)
            copy.left = sorted(_names_of(file) - {os.fspath(tensor.location) for tensor in _tensors(model)})
            if copy.pending.final.exists():  # its content has been compared
                copy.pending.discard()
                copy.pending = None
        yield copy
    except OSError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{file}: its weights cannot be written: {error.strerror or error}") from error
    finally:
        for undo in copy.restore:
            undo()
        if copy.pending is not None:
            copy.pending.discard()


def _is_inside(folder: Path, tensor: ir.ExternalTensor) -> bool:
    target = (folder / tensor.location).resolve()
    return target.is_relative_to(folder) and target.is_file()


def _names_of(file: Path) -> set[str]:
    """Return the names of the data files of the model that ``file`` is now; none where it is no model."""
    if not file.is_file():
        return set()
    try:
        return {os.fspath(tensor.location) for tensor in _tensors(ir.load(file))}
    except Exception:  # noqa: BLE001 - a file that cannot be read refers to nothing
        return set()


def _refuse_lists(model: ir.Model, file: Path) -> None:
    for graph in _graphs(model):
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type != ir.AttributeType.TENSORS or attribute.is_ref():
                    continue
                if any(isinstance(tensor, ir.ExternalTensor) for tensor in attribute.as_tensors()):
                    raise ModelFileError(
                        f"{file}: attribute {attribute.name!r} of node {node.name!r} is a list of tensors with "
                        "external data, which is not supported; write them into the model file"
                    )


def _copied(
    tensors: list[ir.ExternalTensor], pending: Pending, file: Path, progress: Callable[[int, int], None] | None
) -> dict[int, ir.ExternalTensor]:
    """Copy the bytes of ``tensors`` one after the other, and name the file that they make after its content.

    Returns:
        The new tensor for the id of each old one.
    """
    total, done = sum(tensor.nbytes for tensor in tensors), 0
    starts: list[int] = []
    out, digest = pending.stream, hashlib.sha256()
    for tensor in tensors:
        start = -(-out.tell() // _ALIGNMENT) * _ALIGNMENT if tensor.nbytes >= _ALIGNMENT else out.tell()
        out.seek(start)
        starts.append(start)
        digest.update(start.to_bytes(8, "little"))
        for piece in _pieces(tensor):
            out.write(piece)
            digest.update(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
    pending.sync()
    pending.take_mode(file)
    pending.final = _named_by(digest.hexdigest()[:_DIGITS], pending, file)
    return {id(t): _moved(t, start, pending.final) for t, start in zip(tensors, starts, strict=True)}


def _pieces(tensor: ir.ExternalTensor) -> Iterator[bytes]:
    with open(tensor.path, "rb") as source:
        source.seek(tensor.offset or 0)
        left = tensor.nbytes
        while left:
            piece = source.read(min(_PIECE, left))
            if not piece:
                raise ModelFileError(f"{tensor.path}: ends inside tensor {tensor.name!r}; it is truncated")
            yield piece
            left -= len(piece)


def _named_by(digest: str, pending: Pending, file: Path) -> Path:
    """Return where the data goes: a name that is free, or that has this content already."""
    final, number = file.with_name(f"{file.name}.{digest}.data"), 0
    while os.path.lexists(final) and not _same(pending, final):
        number += 1
        final = file.with_name(f"{file.name}.{digest}.{number}.data")
    return final


def _same(pending: Pending, other: Path) -> bool:
    """Return whether a file is a regular one with the content that ``pending`` has."""
    if os.path.islink(other) or not other.is_file():
        return False
    size = os.fstat(pending.stream.fileno()).st_size
    with open(other, "rb") as theirs:
        if os.fstat(theirs.fileno()).st_size != size:
            return False
        return all(
            os.pread(pending.stream.fileno(), _PIECE, start) == theirs.read(_PIECE) for start in range(0, size, _PIECE)
        )


def _moved(tensor: ir.ExternalTensor, start: int, file: Path) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        file.name,
        start,
        tensor.nbytes,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
        base_dir=file.parent,
    )


def _redirect(model: ir.Model, moved: dict[int, ir.ExternalTensor], copy: Copy) -> None:
    for value, tensor in list(_valued(model)):
        if id(tensor) in moved:
            copy.restore.append(lambda v=value, t=tensor: setattr(v, "const_value", t))  # type: ignore[misc]
            value.const_value = moved[id(tensor)]
    for node, name, tensor in list(_attributes(model)):
        if id(tensor) in moved:
            old = node.attributes[name]
            copy.restore.append(lambda n=node, k=name, a=old: n.attributes.__setitem__(k, a))  # type: ignore[misc]
            node.attributes[name] = ir.AttrTensor(name, moved[id(tensor)])


def data_files(model: ir.Model) -> set[Path]:
    """Return the files that hold the model's external weights."""
    return {Path(tensor.path) for tensor in _tensors(model)}


def _tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    found = {id(tensor): tensor for _, tensor in _valued(model)}
    found.update({id(tensor): tensor for _, _, tensor in _attributes(model)})
    return list(found.values())


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for scope in roots:
        yield scope
        yield from scope.subgraphs()


def _valued(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    for graph in _graphs(model):
        if isinstance(graph, ir.Graph):
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    yield value, value.const_value


def _attributes(model: ir.Model) -> Iterator[tuple[ir.Node, str, ir.ExternalTensor]]:
    for graph in _graphs(model):
        for node in graph:
            for name, attribute in node.attributes.items():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = attribute.value
                    if isinstance(tensor, ir.ExternalTensor):
                        yield node, name, tensor
