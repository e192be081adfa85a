"""The files that real exporters wrote, and what each holds, for all tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_spatialdrop.passes.fuse.policy import run as fuse
from onnx_spatialdrop.passes.fuse.report import Record, Report

DATA = Path(__file__).parent / "data"
#: file -> exporter, layer, what it holds, what is expected as [kind, ratio, rank, axes], the same exporter's eval file.
EXPORTED: dict[str, dict[str, Any]] = json.loads((DATA / "exported/cases.json").read_text())
#: file -> [kind, ratio, axes], or None for what is no inverted dropout.
IDIOMS: dict[str, list[Any] | None] = json.loads((DATA / "idioms/cases.json").read_text())
#: Networks of tests/data/make_keras.py -> [kind, ratio, axes] of each dropout that fuse turns into a node.
KERAS: dict[str, list[tuple[str, float, list[int]]]] = {
    "cnn": [("spatial", 0.2, [1, 2]), ("spatial", 0.3, [1, 2])],
    "open_size": [("spatial", 0.2, [1, 2]), ("spatial", 0.3, [1, 2])],
    "residual": [("drop_path", 0.1, [1, 2, 3]), ("drop_path", 0.2, [1, 2, 3]), ("spatial", 0.25, [1, 2])],
    "recurrent": [("spatial", 0.2, [1]), ("spatial", 0.4, [1])],
    "branches": [("spatial", 0.2, [1, 2])],
    "text": [("spatial", 0.1, [1]), ("spatial", 0.1, [1])],
    "alpha": [],
    "dense_block": [("spatial", 0.2, [1, 2]), ("spatial", 0.3, [1, 2])],
    "attention": [("drop_path", 0.2, [1, 2]), ("spatial", 0.3, [1])],
}
#: Kinds that fuse reports and leaves alone.
REPORTED = ("elementwise", "alpha", "feature_alpha")


def exported(name: str) -> str:
    return str(DATA / "exported" / name)


def idiom(name: str) -> str:
    return str(DATA / "idioms" / name)


def keras(name: str) -> str:
    return str(DATA / "keras" / name)


def fuse_file(path: str, **options: bool) -> tuple[ir.Model, Report]:
    model, report = fuse(path, **options)
    assert isinstance(model, ir.Model)
    return model, report


def brief(records: list[Record]) -> list[tuple[object, ...]]:
    return [(record.kind, record.ratio, record.rank, list(record.axes or ())) for record in records]
