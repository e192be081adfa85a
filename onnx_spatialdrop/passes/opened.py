"""A model that came as a protobuf or a file, and stays a protobuf while it is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.storage import external, files, protos

__all__ = ["Opened"]


class Opened:
    """A protobuf, or the file that holds one, in which nodes are looked for.

    Args:
        source: a file, or a model that is not changed.
        wanted: see wellformed.refuse_malformed.

    Attributes:
        survey: its model, which is no one else's.
    """

    def __init__(self, source: Path | onnx.ModelProto, wanted: Collection[str]) -> None:
        self._file = source if isinstance(source, Path) else None
        self._where = "the model" if self._file is None else str(self._file)
        self._content: bytes | None = None
        if isinstance(source, Path):
            self._content = files.read(source)
            model = protos.parse(self._content, self._where)
        else:
            model = onnx.ModelProto()
            model.CopyFrom(source)
        self.survey = protos.survey(model, self._where, wanted, self._content)
        if self.survey.model is not model:  # sorted
            self._content = None
        if self._file is not None:
            protos.check_external(self.survey, self._file)

    @property
    def folder(self) -> str:
        """Where its external data is; "" for a model that came as a protobuf."""
        return "" if self._file is None else os.path.dirname(os.path.abspath(self._file))

    def as_ir(self) -> ir.Model:
        """Return the model as onnx_ir has it, which leaves the protobuf as it is."""
        model = io.from_survey(self.survey, self._where)
        if self._file is not None:
            external.set_folder(model, self.folder)
        return model

    def result(
        self, output: Path | None, is_changed: bool, progress: Callable[[int, int], None] | None = None
    ) -> io.Result:
        """Return the model in the kind that came in, or write it and return ``output``.

        Args:
            output: the file to write.
            is_changed: the survey's model was changed; else a file's content is written as it is.
            progress: see io.save.

        Raises:
            ModelFileError: the file cannot be written.
        """
        if output is None:
            return self.survey.model if self._file is None else self.as_ir()
        if self._file is None:
            return io.save(self.survey.model, output)
        protos.write(self.survey, self._file, output, None if is_changed else self._content, progress)
        return output
