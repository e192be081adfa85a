"""Sizes as values of the run: dimensions that are read from tensors, and what is computed from them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.passes.masks.builder import MaskBuilder
from onnx_spatialdrop.passes.masks.plan import Entry, Group, Size, SizeOf

__all__ = ["MaskSizes"]


class MaskSizes:
    """The sizes of a group's masks.

    Attributes:
        rows: how many rows each mask has, int64 [1].
    """

    def __init__(self, build: MaskBuilder, group: Group) -> None:
        self._build = build
        self._read: dict[SizeOf, ir.Value] = {}
        self._inner: dict[tuple[Size, ...] | None, ir.Value] = {}
        self._lengths: dict[tuple[Size, ...] | None, ir.Value] = {}
        self._wholes: dict[tuple[Size, ...] | None, ir.Value] = {}
        self._whole: ir.Value | None = None
        self._entries = group.entries
        if group.rows is None:
            self._whole = self._mask_shape(group.entries[0])
            self.rows = build.add("Slice", self._whole, build.ints(0), build.ints(1), role="rows")
        else:
            self.rows = self.of(group.rows)

    def length(self) -> ir.Value:
        """Return the entries a sample of the masks, int64 [1], where all have the same sizes."""
        return self.length_of(self._entries[0])

    def length_of(self, entry: Entry) -> ir.Value:
        """Return the entries a sample of a mask, int64 [1]."""
        if entry.inner not in self._lengths:
            self._lengths[entry.inner] = self._length(entry, len(self._lengths))
        return self._lengths[entry.inner]

    def _length(self, entry: Entry, number_of_it: int) -> ir.Value:
        if entry.length is not None:
            return self._build.ints(entry.length)
        if entry.inner is None:
            return self._build.add("ReduceProd", self.inner(entry), role="length", keepdims=1)
        number = int(np.prod([size for size in entry.inner if isinstance(size, int)], dtype=np.int64))
        product = self._build.ints(number)
        for place, size in enumerate(size for size in entry.inner if not isinstance(size, int)):
            product = self._build.add("Mul", product, self.of(size), role=f"length_{number_of_it}_{place}")
        return product

    def of(self, size: Size) -> ir.Value:
        """Return a size, int64 [1]."""
        if isinstance(size, int):
            return self._build.ints(size)
        if size not in self._read:
            axis, role = size.axis, f"size_{len(self._read)}"
            self._read[size] = self._build.size(size.value, axis, role)
        return self._read[size]

    def inner(self, entry: Entry) -> ir.Value:
        """Return the shape of a mask without its dim 0, int64 [rank - 1]."""
        key = entry.inner
        if key not in self._inner:
            self._inner[key] = self._inner_of(key)
        return self._inner[key]

    def whole(self, entry: Entry) -> ir.Value:
        """Return the shape of a mask, int64 [rank]."""
        if self._whole is not None:
            return self._whole
        if entry.inner not in self._wholes:
            self._wholes[entry.inner] = self._whole_of(entry)
        return self._wholes[entry.inner]

    def _whole_of(self, entry: Entry) -> ir.Value:
        assert entry.inner is not None
        assert entry.rows is not None
        if entry.length is not None and isinstance(entry.rows, int):
            return self._build.ints(entry.rows, *(size for size in entry.inner if isinstance(size, int)))
        parts = [self.rows, *([self.inner(entry)] if entry.inner else [])]
        return self._build.join(parts, f"shape_of_mask_{len(self._inner)}_{len(entry.inner)}")

    def _inner_of(self, sizes: tuple[Size, ...] | None) -> ir.Value:
        build = self._build
        if sizes is None:
            assert self._whole is not None
            return build.add("Slice", self._whole, build.ints(1), build.ints(2**31 - 1), role="inner")
        if all(isinstance(size, int) for size in sizes):
            return build.constant(np.array(sizes, np.int64))
        return self._build.join([self.of(size) for size in sizes], f"inner_{len(self._inner)}")

    def _mask_shape(self, entry: Entry) -> ir.Value:
        build, axes = self._build, entry.attributes.axes
        shape = build.add("Shape", entry.x, role="shape")
        if not axes:
            return shape
        ones = build.ints(*[1] * len(axes))
        return build.add("ScatterElements", shape, build.ints(*axes), ones, role="mask_shape", axis=0)
