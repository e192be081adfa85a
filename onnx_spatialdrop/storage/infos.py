"""The value_info of a file, as bytes: which names have which type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from onnx_spatialdrop.storage.interned import Interned
from onnx_spatialdrop.storage.wellformed_values import MalformedError, refuse_type
from onnx_spatialdrop.storage.wire import Table

__all__ = ["Infos"]

_NAME, _TYPE = 1, 2
Ints = npt.NDArray[np.int64]


class Infos:
    """The value_info of a graph.

    Attributes:
        names: the fields that hold their names.
        types: the types that there are, as bytes.
    """

    def __init__(self, fields: Table, count: int) -> None:
        """Take the fields of ``count`` messages."""
        self.names, self._count = fields.of(_NAME), count
        typed = fields.of(_TYPE)
        types = Interned(typed.blob, typed.start, typed.end, few=True)
        self.types = types.contents()
        self._type = np.full(count, -1)
        self._typed = typed.row
        self._more, self._type_ids = np.zeros(count, bool), types.ids
        for number in fields.numbers - {_NAME, _TYPE}:
            self._more[fields.of(number).row] = True

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def check(self, names: Ints) -> None:
        """Check all of them; ``names`` are the numbers of their names.

        Raises:
            MalformedError: one has no name, two have the same, or a type is of no elements that ONNX has.
        """
        count = self._count
        if not (np.array_equal(self.names.row, np.arange(count)) and (np.diff(self._typed) > 0).all()):
            raise MalformedError("a value_info has no name, or two, or two types")
        for content in self.types:  # models repeat a few types a thousand times
            refuse_type(onnx.ValueInfoProto(type=onnx.TypeProto.FromString(content)))
        self._type[self._typed] = self._type_ids
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
