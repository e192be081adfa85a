"""Write docs/recognised.md: what fuse finds in every file of tests/data. Run ``python docs/recognised.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from onnx_spatialdrop.passes.fuse.policy import run as fuse
from onnx_spatialdrop.passes.fuse.report import Record
from onnx_spatialdrop.passes.to_inference import run

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"

TITLE = """# What `fuse` recognises

Written by `python docs/recognised.py` from the files in `tests/data`; a test keeps it up to date. "fused" lists what
became a SpatialDropout node, as kind, ratio and axes; "left alone" what was reported, with the reason. "nodes" counts
the nodes of the file, after `fuse`, and after `to_inference`.

What a value is follows from what the ops compute: draws are functions of one uniform number, looked at where they
are cut in two (`floor(10 u) >= 3`), sizes are products of dimensions, and scales may stand behind views, pooling and
sums. Forms that `expand` wrote are known by their tags and, without these, by running them and comparing the bits.

The operator Bernoulli is refused by default, since ONNX Runtime keeps what it should drop, so that the file as it runs
is no dropout; `fuse(model, bernoulli=True)` goes by ONNX's definition, and `to_inference` removes it either way. What
people write in PyTorch rarely needs that: `bernoulli_(p)` is exported as a uniform draw and Less by both exporters, and
so is `torch.bernoulli(tensor)` by TorchScript below opset 15; from there on, and by dynamo, it becomes the operator.

Time, as multiples of loading and saving the file with onnx_ir 1.1.0 (`python benchmarks/fuse.py`, 10,000 dropouts):
1.25 among 100,000 nodes, 1.15 without shapes in the file, 1.50 directly in series, 0.04 for a file without any.
"""


def cell(records: list[Record], reasons: bool) -> str:
    """Return the text of one cell; equal records are counted."""
    texts: dict[str, int] = {}
    for record in records:
        text = record.kind if record.kind != "unknown" else ""
        if record.ratio is not None and record.axes is not None:
            text += f" {record.ratio:g} {list(record.axes)}"
        text = f"{text}: {record.reason}".removeprefix(": ") if reasons else text
        texts[text] = texts.get(text, 0) + 1
    return "<br>".join(f"{count} x {text}" if count > 1 else text for text, count in texts.items()).replace("|", "\\|")


def row(path: Path, head: str) -> str:
    """Return the table row of one file."""
    model = onnx.load(path)
    fused, report = fuse(model)
    counts = [len(each.graph.node) for each in (model, fused, run(model).model)]
    return f"| {head} | {cell(report.fused, False)} | {cell(report.refused, True)} | {' / '.join(map(str, counts))} |"


def table(folder: str, describe: Any) -> list[str]:
    """Return the rows of all files of a folder."""
    cases = json.loads((DATA / folder / "cases.json").read_text())
    return [row(DATA / folder / name, describe(name, case)) for name, case in cases.items()]


def content() -> str:
    """Return the whole page."""
    exported = table("exported", lambda name, case: f"{name} | {case['layer']} | {case['holds']}")
    idioms = table("idioms", lambda name, case: f"{name} | {'dropout' if case else 'a look-alike'}")
    return "\n".join(
        [
            TITLE,
            "## Files of exporters",
            "",
            "| file | layer | the file holds | fused | left alone | nodes |",
            "|---|---|---|---|---|---|",
            *exported,
            "",
            "## Networks of tf.keras 2.15",
            "",
            "Exported by tf2onnx 1.16.1, which moves transpositions between a scale and its mask.",
            "",
            "| file | fused | left alone | nodes |",
            "|---|---|---|---|",
            *(row(path, path.name) for path in sorted((DATA / "keras").glob("*.onnx"))),
            "",
            "## What people write by hand in PyTorch, and look-alikes",
            "",
            "`_dynamo`: the dynamo exporter, `_unoptimized`: without its optimiser, `_script17`: the TorchScript one.",
            "",
            "| file | meant as | fused | left alone | nodes |",
            "|---|---|---|---|---|",
            *idioms,
            "",
        ]
    )


if __name__ == "__main__":
    (ROOT / "docs" / "recognised.md").write_text(content())
