"""Export networks of public libraries by both of torch's exporters: docs/exporters_torch_libraries.md.

Needs timm, torchvision and transformers; see tests/export/library_networks.py.

    python benchmarks/exporters_torch_libraries.py
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from export.library_networks import BEYOND_TORCH, NETWORKS, Found, study

TABLE = ROOT / "docs" / "exporters_torch_libraries.md"
PACKAGES = ("torch", "onnxscript", "onnx", "onnx-ir", "onnxruntime", "timm", "torchvision", "transformers")
EXPORTERS = {"dynamo": True, "TorchScript": False}
COLUMNS = (
    "| network | exporter | dropouts in training | nodes | own names | difference in inference | masks, two steps |"
)


def row(name: str, exporter: str, found: Found | str) -> str:
    if isinstance(found, str):
        return f"| {name} | {exporter} | | | | | {found} |"
    names, masks = "yes" if found.names else "no", found.verified or "equal"
    return f"| {name} | {exporter} | {found.calls} | {found.nodes} | {names} | {found.inference:.1e} | {masks} |"


def tried(name: str, dynamo: bool) -> Found | str:
    """Return what came out, or what stands in the way."""
    if (name, dynamo) in BEYOND_TORCH:
        return "torch cannot export it, without this package either"
    try:
        return study(name, dynamo)
    except Exception as error:  # noqa: BLE001, whatever torch and three libraries raise goes into the table
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def text(rows: list[str], networks: int) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name).split('+')[0]}" for name in PACKAGES)
    return f"""# Networks of public libraries, exported and compared

Written by `python benchmarks/exporters_torch_libraries.py` with {versions}:
{networks} networks, small or cut down, with random weights and the dropout that their libraries train with,
exported from inference mode with `elementwise=True`, by both of torch's exporters. "Dropouts in training" are
the calls that torch makes in a training-mode pass: layers, functions, attention, stochastic depth. A name is a
layer's own where torch's hooks tell the same. The difference is the largest one to torch in inference mode,
relative to the largest output. Masks are equal where `verify` finds every entry, every layer's result and the
outputs to be torch's own (to 1e-4 of the largest output), in two steps in training mode.

{COLUMNS}
|{"---|" * (COLUMNS.count("|") - 1)}
{chr(10).join(rows)}

`pytest -m slow tests/export/test_torch_zoo.py` asks for the same.
"""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    lines = []
    for network in NETWORKS:
        for exporter, dynamo in EXPORTERS.items():
            lines.append(row(network, exporter, tried(network, dynamo)))
            print(lines[-1], flush=True)
    TABLE.write_text(text(lines, len(NETWORKS)))
