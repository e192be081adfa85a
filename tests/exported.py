"""The files that real exporters wrote, and what each holds, for all tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
#: file -> exporter, layer, what it holds, what is expected as [kind, ratio, rank, axes], the same exporter's eval file.
EXPORTED: dict[str, dict[str, Any]] = json.loads((DATA / "exported/cases.json").read_text())
#: file -> [kind, ratio, axes], or None for what is no inverted dropout.
IDIOMS: dict[str, list[Any] | None] = json.loads((DATA / "idioms/cases.json").read_text())
#: Kinds that fuse reports and leaves alone.
REPORTED = ("elementwise", "alpha", "feature_alpha")


def exported(name: str) -> str:
    return str(DATA / "exported" / name)


def idiom(name: str) -> str:
    return str(DATA / "idioms" / name)
