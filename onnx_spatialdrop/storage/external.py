"""External data of models: checked, kept by reference, or copied in pieces. It never holds weights in memory."""

from __future__ import annotations

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


class Copy:
    """What has to happen when a model is written whose external data was or is elsewhere.

    Attributes:
        final: where copied data belongs.
        pending: the copy, on its way there; None where nothing had to be copied.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.pending: Pending | None = None
        self.restore: list[Callable[[], None]] = []

    def commit(self) -> None:
        """Give the copied file its name."""
        if self.pending is not None:
            self.pending.place()


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
    kept = {os.path.normpath(t.location) for t in _tensors(model) if t not in foreign}
    lost = [t for t in _tensors(model) if t.base_dir == "" and not _is_inside(folder, t)]
    if lost:
        raise ModelFileError(
            f"{file}: tensor {lost[0].name!r} refers to {os.fspath(lost[0].location)!r}, which is not in {folder}, and "
            "the model does not say where it was read from; read it with onnx_spatialdrop.load, which keeps that"
        )
    copy = Copy(final=_data_file(file, folder, kept) if foreign else folder / f"{file.name}.data")
    try:
        if foreign:
            copy.pending = Pending(copy.final)
            _redirect(model, _copy(foreign, copy.pending, progress), copy)
        yield copy
    except OSError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{copy.final}: cannot be written: {error.strerror or error}") from error
    finally:
        for undo in copy.restore:
            undo()
        if copy.pending is not None:
            copy.pending.discard()


def _is_inside(folder: Path, tensor: ir.ExternalTensor) -> bool:
    target = (folder / tensor.location).resolve()
    return target.is_relative_to(folder) and target.is_file()


def _data_file(file: Path, folder: Path, kept: set[str]) -> Path:
    """Return where copied weights go: a name that is free, or that only the model to be replaced uses."""
    name, number = f"{file.name}.data", 0
    while name in kept or ((folder / name).exists() and not _refers_to(file, name)):
        number += 1
        name = f"{file.name}.{number}.data"
    return folder / name


def _refers_to(file: Path, name: str) -> bool:
    try:
        old = ir.load(file)
    except Exception:  # noqa: BLE001 - a file that cannot be read refers to nothing
        return False
    return any(os.path.normpath(tensor.location) == name for tensor in _tensors(old))


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


def _copy(
    tensors: list[ir.ExternalTensor], pending: Pending, progress: Callable[[int, int], None] | None
) -> dict[int, ir.ExternalTensor]:
    """Copy the bytes of ``tensors`` one after the other; return the new tensor for the id of each old one."""
    total, done = sum(tensor.nbytes for tensor in tensors), 0
    moved: dict[int, ir.ExternalTensor] = {}
    out, final = pending.stream, pending.final
    for tensor in tensors:
        start = -(-out.tell() // _ALIGNMENT) * _ALIGNMENT if tensor.nbytes >= _ALIGNMENT else out.tell()
        out.seek(start)
        with open(tensor.path, "rb") as source:
            source.seek(tensor.offset or 0)
            left = tensor.nbytes
            while left:
                piece = source.read(min(_PIECE, left))
                if not piece:
                    raise ModelFileError(f"{tensor.path}: ends inside tensor {tensor.name!r}; it is truncated")
                out.write(piece)
                left -= len(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
        moved[id(tensor)] = ir.ExternalTensor(
            final.name,
            start,
            tensor.nbytes,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name or "",
            doc_string=tensor.doc_string,
            metadata_props=tensor.metadata_props,
            base_dir=final.parent,
        )
    pending.sync()
    return moved


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
