"""The value_info of a file, as bytes: which names have which type."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from onnx_spatialdrop.interned import Interned
from onnx_spatialdrop.wellformed_values import MalformedError, refuse_type
from onnx_spatialdrop.wire import Fields

__all__ = ["Infos"]

_NAME, _TYPE = 1, 2
_LENGTH: Final = 2
Ints = npt.NDArray[np.int64]


class Infos:
    """The value_info of a graph.

    Attributes:
        names: the fields that hold their names.
        contents: each as bytes.
        types: the types that there are, as bytes.
    """

    def __init__(self, fields: Fields, contents: list[bytes], first: int) -> None:
        """Take the fields of ``contents``, which in their table come after ``first`` other messages."""
        self.names, self.contents = fields.of(_NAME), contents
        typed = fields.of(_TYPE)
        types = Interned(fields.blob, typed.start, typed.end, few=True)
        self.types = types.contents()
        self._type = np.full(len(contents), -1)
        self._typed, self._first = typed.row - first, first
        known = (fields.tag == _NAME << 3 | _LENGTH) | (fields.tag == _TYPE << 3 | _LENGTH)
        self._more = np.zeros(len(contents), bool)
        self._strays, self._type_ids = fields.row[~known] - first, types.ids

    def check(self, names: Ints) -> None:
        """Check all of them; ``names`` are the numbers of their names.

        Raises:
            MalformedError: one has no name, two have the same, or a type is of no elements that ONNX has.
        """
        count = len(self.contents)
        rows = self.names.row - self._first
        if not (np.array_equal(rows, np.arange(count)) and (np.diff(self._typed) > 0).all()):
            raise MalformedError("a value_info has no name, or two, or two types")
        for content in self.types:  # models repeat a few types a thousand times
            refuse_type(onnx.ValueInfoProto(type=onnx.TypeProto.FromString(content)))
        self._type[self._typed] = self._type_ids
        self._more[self._strays] = True
        self._of = np.full(int(names.max(initial=-1)) + 1, -1)
        self._of[names] = np.arange(count)
        if len(names) and int(np.bincount(names).max()) > 1:
            raise MalformedError("two value_info have the same name")

    def at(self, names: Ints) -> Ints:
        """Return which value_info is that of each name; -1 where there is none."""
        inside = names < len(self._of)
        found = np.full(len(names), -1)
        found[inside] = self._of[names[inside]]
        return found

    def type_of(self, info: Ints) -> Ints:
        """Return the type of each value_info: which of ``types``, or -1."""
        return self._type[info]

    def says_more(self, info: Ints) -> npt.NDArray[np.bool_]:
        """Return whether there is more in a value_info than a name and a type."""
        return self._more[info]
