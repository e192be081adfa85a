"""External data copied to beside a model that is written, in pieces, under a name that its content gives it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.storage.external import held_by_attributes, held_by_values, refuse_lists, tensors
from onnx_spatialdrop.storage.files import Pending

__all__ = ["moved_to"]

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


@contextmanager
def moved_to(model: ir.Model, file: Path, progress: Callable[[int, int], None] | None) -> Iterator[Copy]:
    """Let ``model`` refer, inside the context, to external data that is or will be beside ``file``.

    The caller writes the model and then commits the copy; on the way out the model is as it was before.
    """
    refuse_lists(model, file)
    folder = file.parent.resolve()
    foreign = [t for t in tensors(model) if t.base_dir != "" and Path(t.base_dir).resolve() != folder]
    lost = [t for t in tensors(model) if t.base_dir == "" and not _is_inside(folder, t)]
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
            copy.left = sorted(_names_of(file) - {os.fspath(tensor.location) for tensor in tensors(model)})
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
        return {os.fspath(tensor.location) for tensor in tensors(ir.load(file))}
    except Exception:  # noqa: BLE001 - a file that cannot be read refers to nothing
        return set()


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
    for value, tensor in list(held_by_values(model)):
        if id(tensor) in moved:
            copy.restore.append(lambda v=value, t=tensor: setattr(v, "const_value", t))  # type: ignore[misc]
            value.const_value = moved[id(tensor)]
    for node, name, tensor in list(held_by_attributes(model)):
        if id(tensor) in moved:
            old = node.attributes[name]
            copy.restore.append(lambda n=node, k=name, a=old: n.attributes.__setitem__(k, a))  # type: ignore[misc]
            node.attributes[name] = ir.AttrTensor(name, moved[id(tensor)])
