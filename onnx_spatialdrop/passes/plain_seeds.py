"""SpatialDropout nodes that differ in their seeds only, found in the bytes of their attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from onnx_spatialdrop.interned import Interned, words
from onnx_spatialdrop.wire import Fields

__all__ = ["representatives"]

_SEED_HEAD: Final = np.uint64(int.from_bytes(b"\0\n\x04seed\x18", "little"))
_SEED: Final = re.compile(rb"\n\x04seed\x18[\x80-\xff]{0,9}[\x00-\x7f]\xa0\x01\x02")


def representatives(fields: Fields) -> Iterator[tuple[int, list[bytes]]]:
    """Yield nodes and their attributes, one of each that differ in no more than their seeds."""
    likely = np.flatnonzero(words(fields.blob)[fields.start] << np.uint64(8) == _SEED_HEAD)
    seeds = [_SEED.fullmatch(content) is not None for content in fields.where(likely).values()]
    seed = np.zeros(len(fields.row), bool)
    seed[likely[np.array(seeds, bool)]] = True
    kept = fields.where(~seed)
    ids = Interned(fields.blob, kept.start, kept.end, few=True).ids
    rows, place, count = np.unique(kept.row, return_index=True, return_counts=True)
    found = list[int]()
    single = np.isin(rows, fields.row[seed]) & (
        np.bincount(fields.row[seed], minlength=int(rows.max(initial=0)) + 1)[rows] == 1
    )
    found += np.setdiff1d(fields.row, rows[single]).tolist()
    for size in np.unique(count[single]).tolist():
        alike = np.flatnonzero(single & (count == size))
        table = ids[place[alike][:, None] + np.arange(size)]
        picked = np.zeros(1, np.int64) if (table == table[0]).all() else np.unique(table, axis=0, return_index=True)[1]
        found += rows[alike[picked]].tolist()
    for row in found:
        yield row, fields.where(fields.row == row).values()
