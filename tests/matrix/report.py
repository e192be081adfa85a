"""Run the matrix and write docs/compatibility.md from what came out.

    python tests/matrix/report.py --collect a.json onnxruntime openvino onnxslim    in each environment
    python tests/matrix/report.py --write a.json b.json ...                         once

A tool that is missing is left out, with its reason. Cells that do not come out as cells.py expects are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from matrix import javascript, optimizers, runtimes  # noqa: E402 - the line above makes it importable
from matrix.cells import (  # noqa: E402
    FOR_OPENVINO,
    FORMS,
    KINDS,
    LEVELS,
    OPTIMIZERS,
    RUNTIMES,
    Cell,
    expected,
    of_optimizers,
    of_runtimes,
)
from matrix.outcomes import in_javascript, missing, outcome  # noqa: E402

DOCUMENT = ROOT / "docs/compatibility.md"
#: Tool -> the versions that the document is about, the newest last; --write keeps it in step.
MEASURED = Path(__file__).with_name("measured.json")
Outcomes = Mapping[tuple[str, Cell], str]

HEAD = """\
# What works where

Written by `tests/matrix/report.py` from what happened when it was run; `tests/matrix/cells.py` says what is expected,
and `.ci/matrix` checks it. Each cell stands for the files of [models/](../models/README.md) that hold dropout, or held
it before export: NCHW and NHWC, sequences, float16, If, functions, external weights; and for digits_keras with masks as
Keras itself draws them (`keras_tf`, `keras_tf_xla`, `keras_jax`). The eval exports are in `identity` alone.

- **bits**: masks equal the reference bit for bit, for one step, steps beyond 2^40 (OpenVINO: up to 2^31) and one step
  a sample (but in tract, which takes one step a run); a negative step is fresh in every run; without training the
  logits are the framework's.
- **drawn**: whole maps are dropped, in the right proportion, other ones in every run and in every node.
- **fed**: the masks are those that were fed, bit for bit.
- **off**: no dropout; the logits are the framework's.
- **refused**: `expand(model, target=...)` says no, and what to do instead.
- **warned**: it does go wrong, and `check(model, target=...)` says so beforehand; [check.md](check.md) lists the rules.

Nothing else came out: no file just fails. The rules for a target find nothing in files that work there, but for If in
what ONNX Runtime saves, where the level decides.
"""
MIDDLE = """
ONNX Runtime was run at the levels {levels} (1.20.1 has no level layout), without a
kernel of ours ([native.md](native.md) has it). In onnxruntime-node and onnxruntime-web (wasm, in a headless Chromium)
the switches have no default, elsewhere they have one where `expand` leaves it. tract draws once for ever inside If,
has no Gemm in float16, and does not come back from loading the `philox-int32` of Keras's dialects. A function's calls
would share one mask, so `mask-inputs` is refused for digits_function, but for targets that have functions written out.
For onnx's ReferenceEvaluator the seeded forms start anew every run.

Not in the matrix, refused by name as targets: onnx2tf (run: drops in every run), IREE 3.13.0 (run: `mask-inputs` right,
`philox-int32` as for OpenVINO wrong), TensorRT (read: no BitwiseXor, seeds ignored); [integrations.md](integrations.md)
has more.

## Optimisers

Each optimiser is given the files that differ in kind ({kinds}),
and ONNX Runtime {newest} runs what it makes of them. The column `philox-int32, openvino` is
`expand(model, form="philox-int32", target="openvino")`, whose fresh draws come from RandomUniformLike (ONNX Runtime has
it up to opset 21).
"""
TITLES = {
    "default": "Switches with a default, as our tools write them",
    "fed": "Switches without: `expand(model, defaults=False)`, `attach(model, defaults=False)`",
    "fixed": "Constants: `training_mode` is true, `step` is -1",
}
TAIL = """
So a model that shall go through onnxslim or onnxsim and stay switchable is expanded with `defaults=False`. For onnxslim
the form is `uniform` (with a batch of any size, or it freezes the draw), or `philox-int32` for OpenVINO where the bits
matter, or `mask-inputs`; or it is run before `insert`, `fuse` or `expand`. What ONNX Runtime saves after optimising
loads again for models without If, and for others at the levels basic and extended without function bodies.
"""


def collect(tools: Iterable[str], models: Iterable[str]) -> dict[tuple[str, Cell], str]:
    """Return the outcomes of all cells of ``tools`` by version and cell, of all models or only of some."""
    found = dict[tuple[str, Cell], str]()
    for tool in tools:
        reason = missing(tool)
        if reason:
            print(f"{tool}: left out: {reason}")
            continue
        version = _version(tool)
        cells = list((of_runtimes if tool in RUNTIMES else of_optimizers)(tool))
        cells = [cell for cell in cells if not models or cell.model in models]
        with tempfile.TemporaryDirectory() as name:
            if tool.startswith("onnxruntime-"):
                outcomes = in_javascript(cells, Path(name))
            else:
                outcomes = {cell: outcome(cell, Path(name)) for cell in cells}
        for cell, happened in outcomes.items():
            found[version, cell] = happened
            if happened != expected(cell):
                print(f"{' '.join(cell)}: expected {expected(cell)}, and came out as {happened}")
        print(f"{tool} {version}: {len(cells)} cells", flush=True)
    return found


def _version(tool: str) -> str:
    if tool.startswith("onnxruntime-"):
        return javascript.versions(tool)
    return (runtimes if tool in RUNTIMES else optimizers).version_of(tool)


def render(outcomes: Outcomes) -> str:
    """Return the document for outcomes by version and cell."""
    levels = ", ".join(level for level in LEVELS if any(cell.tool == f"onnxruntime {level}" for _, cell in outcomes))
    newest = max((version for version, cell in outcomes if cell.tool == "onnxruntime all"), key=_numbers, default="")
    parts = [
        HEAD,
        "\n## Runtimes\n\n",
        _table(outcomes, FORMS, RUNTIMES, None),
        MIDDLE.format(levels=levels, kinds=", ".join(KINDS), newest=newest),
    ]
    for switches, title in TITLES.items():
        forms = FORMS if switches == "default" else (*FORMS[:-1], FOR_OPENVINO)
        parts += [f"\n### {title}\n\n", _table(outcomes, forms, OPTIMIZERS, switches)]
    return "".join(parts) + TAIL


def _table(outcomes: Outcomes, forms: Iterable[str], tools: Iterable[str], switches: str | None) -> str:
    rows: dict[str, dict[str, dict[str, set[str]]]] = {}
    for (version, cell), happened in sorted(outcomes.items(), key=lambda item: _order(*item[0])):
        if cell.tool in tools and switches in (None, cell.switches):
            forms_of = rows.setdefault(_label(version, cell.tool), defaultdict(lambda: defaultdict(set)))
            forms_of[cell.form][happened].add(cell.model)
    lines = ["| |" + "".join(f" {form} |" for form in forms), "|---|" + "---|" * len(list(forms))]
    lines += [f"| {label} |" + "".join(f" {_words(row[form])} |" for form in forms) for label, row in rows.items()]
    return "\n".join(lines) + "\n"


def _order(version: str, cell: Cell) -> tuple[object, ...]:
    tools = [*RUNTIMES, *OPTIMIZERS]
    first = 0 if cell.tool in {f"onnxruntime {level}" for level in LEVELS} else tools.index(cell.tool)
    return (first, _numbers(version), cell)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(",")[0].split(".") if part.isdigit()]


def _label(version: str, tool: str) -> str:
    if tool in OPTIMIZERS:
        return tool.replace("onnxruntime offline", f"onnxruntime {version}, saved at level") if " " in tool else (
            f"{tool} {version}"
        )  # fmt: skip
    return f"onnx's ReferenceEvaluator {version}" if tool == "reference" else f"{tool.split()[0]} {version}"


def _words(outcomes: Mapping[str, set[str]]) -> str:
    """Return the outcome that most models have, and what the others have."""
    ranked = sorted(outcomes, key=lambda word: (-len(outcomes[word]), word))
    rest = [f"{', '.join(sorted(outcomes[word]))}: {word}" for word in ranked[1:]]
    return "; ".join([*ranked[:1], *rest])


def expectations(measured: Mapping[str, Iterable[str]]) -> dict[tuple[str, Cell], str]:
    """Return what cells.py expects of the versions that were measured."""
    return {
        (version, cell): expected(cell)
        for tool, versions in measured.items()
        for version in versions
        for cell in (of_runtimes if tool in RUNTIMES else of_optimizers)(tool)
    }


def main() -> None:
    """Collect or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collect", metavar="FILE", type=Path)
    parser.add_argument("--write", metavar="FILE", type=Path, nargs="+")
    parser.add_argument("--models", nargs="*", default=(), help="collect for these alone")
    parser.add_argument("tools", nargs="*", help="runtimes and optimisers, by the first words of their names")
    given = parser.parse_args()
    if given.collect:
        chosen = [tool for tool in [*RUNTIMES, *OPTIMIZERS] if tool.startswith(tuple(given.tools) or "")]
        found = collect(chosen, given.models)
        rows = [[version, *cell, happened] for (version, cell), happened in found.items()]
        given.collect.write_text(json.dumps(rows, indent=0))
    if given.write:
        rows = [row for file in given.write for row in json.loads(file.read_text())]
        found = {(version, Cell(*cell)): happened for version, *cell, happened in rows}
        measured: dict[str, set[str]] = defaultdict(set)
        for version, cell in found:
            measured[cell.tool].add(version)
        MEASURED.write_text(json.dumps({tool: sorted(measured[tool]) for tool in sorted(measured)}, indent=1) + "\n")
        DOCUMENT.write_text(render(found))


if __name__ == "__main__":
    main()
