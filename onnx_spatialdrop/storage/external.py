"""External data of models: found and checked, never read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from onnx_spatialdrop.errors import ModelFileError

__all__ = [
    "check",
    "dangling",
    "data_files",
    "folders",
    "held_by_attributes",
    "held_by_values",
    "refuse_lists",
    "set_folder",
    "tensors",
    "without_base_dir",
]


def check(model: ir.Model, file: Path) -> None:
    """Refuse external data that is missing, too short, or outside the folder of ``file``.

    Raises:
        ModelFileError: naming the tensor and the file.
    """
    folder = Path(os.path.abspath(file)).parent
    # A model that is a link (as in model caches) may have its data beside what it points to.
    allowed = (folder.resolve(), file.resolve().parent)
    refuse_lists(model, file)
    sizes: dict[str, int] = {}
    for tensor in tensors(model):
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
    for tensor in tensors(model):
        tensor.base_dir = folder


def dangling(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the external tensors whose bytes are not all there."""
    found = []
    for tensor in tensors(model):
        path = Path(tensor.path)
        if not path.is_file() or path.stat().st_size < _end(tensor):
            found.append(tensor)
    return found


def without_base_dir(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the external tensors of which the model does not know in which folder they lie."""
    return [tensor for tensor in tensors(model) if tensor.base_dir == ""]


def _end(tensor: ir.ExternalTensor) -> int:
    return (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)


def folders(model: ir.Model) -> set[Path]:
    """Return the folders in which the model's external data lies, where the model knows them."""
    return {Path(tensor.base_dir) for tensor in tensors(model) if tensor.base_dir != ""}


def refuse_lists(model: ir.Model, file: Path) -> None:
    """Refuse external data in attributes that are lists of tensors."""
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


def data_files(model: ir.Model) -> set[Path]:
    """Return the files that hold the model's external weights."""
    return {Path(tensor.path) for tensor in tensors(model)}


def tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the external tensors of a model, each once."""
    found = {id(tensor): tensor for _, tensor in held_by_values(model)}
    found.update({id(tensor): tensor for _, _, tensor in held_by_attributes(model)})
    return list(found.values())


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for scope in roots:
        yield scope
        yield from scope.subgraphs()


def held_by_values(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    """Yield the initializers with external data, functions' and subgraphs' included."""
    for graph in _graphs(model):
        if isinstance(graph, ir.Graph):
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    yield value, value.const_value


def held_by_attributes(model: ir.Model) -> Iterator[tuple[ir.Node, str, ir.ExternalTensor]]:
    """Yield the nodes with external data in an attribute, and the attribute's name."""
    for graph in _graphs(model):
        for node in graph:
            for name, attribute in node.attributes.items():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = attribute.value
                    if isinstance(tensor, ir.ExternalTensor):
                        yield node, name, tensor
